"""Serves the test model as an OpenAI-compatible server on loopback, until it is told to stop.

usage: serve.py MODEL ALIAS READY_FILE CTX_TOKENS THREADS

Writes READY_FILE (JSON: pid, url, model, ctx_tokens) by rename once it listens, so that a reader
never sees half of it. THREADS counts for prompt and for generation alike: one where the cores are
shared, because the spin barriers of a second thread then cost far more than it computes.
"""

import json
import os
import signal
import sys
import threading

# The cores belong to whoever tests; the model takes what is left.
NICENESS = 10
# Keeps a few earlier prompts warm without growing into the machine.
PROMPT_CACHE_MIB = 512


def settings(xllamacpp, model, alias, ctx_tokens, threads):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = ctx_tokens
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.sampling.temp = 0.0
    params.use_jinja = True
    params.cache_ram_mib = PROMPT_CACHE_MIB
    return params


def main():
    model, alias, ready = sys.argv[1:4]
    ctx_tokens, threads = int(sys.argv[4]), int(sys.argv[5])
    os.setsid()
    os.nice(NICENESS)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    import xllamacpp

    server = xllamacpp.Server(settings(xllamacpp, model, alias, ctx_tokens, threads))
    state = {
        "pid": os.getpid(),
        "url": server.listening_address + "/v1",
        "model": alias,
        "ctx_tokens": ctx_tokens,
    }
    temporary = ready + ".partial"
    with open(temporary, "w", encoding="utf-8") as sink:
        json.dump(state, sink)
    os.replace(temporary, ready)
    stop.wait()
    # The server's own threads may be in the middle of an answer that nobody waits for any more.
    os._exit(0)


if __name__ == "__main__":
    main()
