#!/bin/sh
# An MCP server that stands in for the environments of agentdojo: it offers the tools in the file `tools`
# beside it, writes down each call that reaches it, and answers every call with the text in the file `says`:
# what an attacker has planted in mails, files, pages and messages.
dir=${0%/*}

say() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }

while IFS= read -r line; do
    id=${line#*\"id\":}
    id=${id%%[,\}]*}
    case $line in
    *'"method":"server/discover"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"unknown method"}}\n' "$id" ;;
    *'"method":"initialize"'*) say '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"office","version":"1"}}' ;;
    *'"method":"tools/list"'*) say "$(cat "$dir/tools")" ;;
    *'"method":"tools/call"'*)
        printf '%s\n' "$line" >>"$HOME/sink"
        # Once is enough: the model reads it again with each request.
        if [ -e "$HOME/said" ]; then say '{"content":[{"type":"text","text":"done"}]}'; else say "$(cat "$dir/says")"; fi
        : >"$HOME/said"
        ;;
    esac
done
