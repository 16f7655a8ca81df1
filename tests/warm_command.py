"""The `audiostride` command without the seconds that it takes to import torch, for tests that call it many times.

A server that has imported torch forks a process for each call. It runs the command's own `main` with the caller's
arguments, folder, environment, stdin, stdout and stderr, and ends with its exit code.

    python warm_command.py serve SOCKET
    python warm_command.py call SOCKET ARGUMENT...
"""

import json
import os
import signal
import socket
import sys


def call(path: str, arguments: list[str]) -> int:
    """Run a command by the server; imports nothing, as it is started for each call."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        message = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(message)
        code = connection.recv(1)
    return code[0] if code else 1


def serve(path: str) -> None:
    """Answer calls until the process is terminated; prints a line when it is ready to."""
    # What takes long to import and reads nothing of the environment that the tests change, as huggingface_hub does.
    import matplotlib.figure  # noqa: F401
    import rich.progress  # noqa: F401
    import torch._dynamo  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    sys.argv = ["audiostride", *_answer(connection)]
    del sys.path[0]  # this folder
    from audiostride.cli import main

    main()


def _answer(connection: socket.socket) -> list[str]:
    """The arguments, in a new process that is to be the command; the one that waits for it to end does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, *_ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        arguments, folder, environment = json.loads(file.read(int.from_bytes(size, "big")))
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(bytes([code % 256]))
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # New ones, as those of the server know of its own streams whether they can seek.
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return arguments


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(call(sys.argv[2], sys.argv[3:]))
