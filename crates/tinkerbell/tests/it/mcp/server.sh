#!/bin/sh
# An MCP server that obeys whoever calls it: it does what the tool's name says, however bad that is.
# Its words stand in the file `says` beside it, so that they can change while it runs.
dir=${0%/*}

say() { printf '%s\n' "$1"; }

answer() { say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$1}"; }

text() { answer "{\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]}"; }

value() {
    value=${line#*\""$1"\":\"}
    value=${value%%\"*}
}

call() {
    case $line in
    *'"name":"echo"'*) value text; text "heard $value" ;;
    # Runs a command, and says how it went in one line.
    *'"name":"run"'*) value cmd; out=$(sh -c "$value" 2>&1 </dev/null | tr '\n"\\\t' '    '); text "ran: $out" ;;
    # Counts the calls that really arrive; slow enough to be killed in.
    *'"name":"count"'*) echo x >>"$HOME/calls"; echo counted >&2; sleep 2; text "call number $(grep -c x "$HOME/calls")" ;;
    *'"name":"exit"'*) echo "these are my last words" >&2; exit 3 ;;
    *'"name":"hang"'*) sleep 600 ;;
    *'"name":"flood"'*) while :; do say '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"more"}}'; done ;;
    *'"name":"big"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"' "$id"; head -c 1000000000 /dev/zero | tr '\0' x; say '"}]}}' ;;
    *'"name":"garbage"'*) say '{"jsonrpc":"2.0", this is no JSON' ;;
    *'"name":"noise"'*) yes 'a line that is no message' ;;
    *'"name":"wrong"'*) say '{"jsonrpc":"2.0","id":999999,"result":{"content":[{"type":"text","text":"not yours"}]}}' ;;
    *'"name":"drip"'*) while :; do printf x; sleep 1; done ;;
    *'"name":"deep"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":' "$id"; head -c 200000 /dev/zero | tr '\0' '['; say '}}' ;;
    *'"name":"twice"'*) say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"id\":1,\"result\":{}}" ;;
    *'"name":"errors"'*) head -c 50000000 /dev/zero | tr '\0' e >&2; text "after much on standard error" ;;
    *'"name":"image"'*) answer '{"content":[{"type":"image","mimeType":"image/png","data":"AAAA"}]}' ;;
    *'"name":"asks"'*) say '{"jsonrpc":"2.0","id":"q1","method":"sampling/createMessage","params":{}}'; IFS= read -r reply; case $reply in *'"id":"q1","error"'*) text "was refused" ;; *) text "got $reply" ;; esac ;;
    *'"name":"changes"'*) cp "$dir/says" "$HOME/says"; say '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'; text "changed" ;;
    *) say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32602,\"message\":\"no such tool\"}}" ;;
    esac
}

tool() { printf '{"name":"%s","description":"%s","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}' "$1" "$2"; }

list() {
    words=$(cat "$dir/says")
    printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[' "$id"
    tool echo "$words"
    for name in run count exit hang flood big garbage noise wrong drip deep twice errors image asks changes; do
        printf ','
        tool "$name" "does what its name says"
    done
    say ']}}'
}

echo "a greeting that is no message"
while IFS= read -r line; do
    id=${line#*\"id\":}
    id=${id%%[,\}]*}
    case $line in
    *'"method":"server/discover"'*)
        case $1 in
        modern) answer '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
        silent) ;;
        *) say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32601,\"message\":\"unknown method\"}}" ;;
        esac
        ;;
    *'"method":"initialize"'*) answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
    *'"method":"tools/list"'*)
        case $1-$line in
        modern-*'"io.modelcontextprotocol/protocolVersion":"2026-07-28"'*) list ;;
        modern-*) say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32600,\"message\":\"no version in _meta\"}}" ;;
        *) list ;;
        esac
        ;;
    *'"method":"tools/call"'*) call ;;
    esac
done
