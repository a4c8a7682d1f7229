"""The Python runtime of a clone.

It starts in the template, imports and runs through everything that an event will need, says "ready" on fd 4 and waits
for fd 3. Then it is part of the template's memory. In a clone the wait ends: randomness is renewed; later the event
comes, the customer's handler is loaded and called, and its result leaves on fd 4. docs/FORMATS.md, "Runtime channel",
has the format.
"""
import asyncio
import importlib.util
import inspect
import json
import os
import random
import runpy
import ssl
import sys
import tempfile
import time
import traceback
import types
import uuid

REQUEST_FD = 3
RESULT_FD = 4
RENEW = b"renew\n"
CHUNK_BYTES = 65_536
REHEARSAL_ROUNDS = 3
SAMPLE_REQUEST = (
    b'{"runId":"","deadlineMillis":0,"memoryBytes":1,"image":""}\n'
    b'{"id":"1","data":[1,2.5,"a",null,true]}'
)
# Error text is for people: what is beyond this is cut, characters.
TEXT_MAX = 16_384
ASYNCIO = os.path.dirname(asyncio.__file__)
WARM_HANDLER = "async def handler(event, context):\n    return {'echo': event, 'left': context.remaining_millis()}\n"


# ---- fd 3 and fd 4 ---------------------------------------------------------------------------------------------------


def await_renewal():
    """Waits for the agent's word as long as it takes."""
    word = b""
    while len(word) < len(RENEW):
        got = os.read(REQUEST_FD, len(RENEW) - len(word))
        if not got:
            os._exit(1)
        word += got
    if word != RENEW:
        os._exit(1)


def read_head():
    """The first line, and what was read beyond it: which function it is. The event may come much later."""
    read = b""
    while b"\n" not in read:
        chunk = os.read(REQUEST_FD, CHUNK_BYTES)
        if not chunk:
            os._exit(1)
        read += chunk
    line, _, ahead = read.partition(b"\n")
    head = json.loads(line)
    set_environment(head.get("env", {}))
    return head, ahead


def read_request(ahead):
    """Everything until end of file."""
    chunks = [ahead]
    while chunk := os.read(REQUEST_FD, CHUNK_BYTES):
        chunks.append(chunk)
    os.close(REQUEST_FD)
    return b"".join(chunks)


def parse_request(request):
    line, _, event = request.partition(b"\n")
    return json.loads(line), json.loads(event)


def set_environment(variables):
    """This process started in the template: what the caller sets is set before anything of the function is loaded."""
    os.environ.update(variables)
    if "TZ" in variables:
        time.tzset()


def write_all(text):
    left = memoryview(text.encode())
    while left:
        left = left[os.write(RESULT_FD, left):]


def answer(text):
    """The last thing that happens: the agent ends the process as soon as fd 4 is closed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # The customer's code may have closed or replaced it.
    write_all(text)
    os.close(RESULT_FD)
    os._exit(0)


# ---- randomness ------------------------------------------------------------------------------------------------------


def renew_randomness():
    """Whatever in this process produces random values starts anew; raises when anything could not be renewed.

    Clones of one template wake up with the same memory. os.urandom, secrets and uuid4 ask the kernel, which the agent
    has reseeded; the rest has state of its own.
    """
    before = random.getstate()
    random.seed(os.urandom(32))
    if random.getstate() == before:
        raise RuntimeError("no randomness")
    # Reseeds OpenSSL's primary generator from the kernel, too; those of all threads derive from it.
    ssl.RAND_add(os.urandom(32), 32.0)
    tempfile._name_sequence = None
    uuid._node = None
    uuid._last_timestamp = None
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].current_process().authkey = os.urandom(32)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(int.from_bytes(os.urandom(4), "little"))


# ---- the call --------------------------------------------------------------------------------------------------------


class Failure(Exception):
    """An error with the phase it belongs to."""

    def __init__(self, phase, error):
        super().__init__(phase)
        self.phase = phase
        self.error = error


class Context:
    """What a handler gets beside its event."""

    def __init__(self, given):
        self.run_id = given["runId"]
        self.deadline_millis = given["deadlineMillis"]
        self.memory_bytes = given["memoryBytes"]
        self.image = given["image"]

    def remaining_millis(self):
        return max(0, self.deadline_millis - int(time.time() * 1000))


def respond(head, load, read):
    """Loads the function, then waits for its event: `read` gives the request's bytes."""
    try:
        handler = load(head["handler"])
        if head.get("rehearse"):
            rehearse_call()
        context, event = parse_request(read())
        return '{"ok":true,"value":%s}' % encode(call(handler, event, Context(context)))
    except Failure as failure:
        return describe(failure)


def serve(head):
    """Runs the file as Python would by itself. A server answers over the network, and the host ends it."""
    path = head["handler"]
    sys.path.insert(0, os.path.dirname(path))
    sys.argv = [path]
    if head.get("rehearse"):
        write_all(" ")
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as error:
        leave(error)
    except BaseException as error:
        return describe(Failure("load", error))
    # Its threads may serve.
    while True:
        time.sleep(3600)


def rehearse_call():
    """In a clone that has time before its event: what is between request and answer runs once, without the customer's
    code, so that the machine below has translated it by then."""
    for _ in range(REHEARSAL_ROUNDS):
        context, event = parse_request(SAMPLE_REQUEST)
        encode(call(lambda given, _: {"given": given}, event, Context(context)))
    # Blanks before JSON mean nothing; this one tells the host that this clone is ready.
    write_all(" ")


def load_handler(path):
    """The file's `handler`; modules beside it can be imported."""
    sys.path.insert(0, os.path.dirname(path))
    name = os.path.splitext(os.path.basename(path))[0]
    try:
        specification = importlib.util.spec_from_file_location(name, path)
        if specification is None:
            raise ImportError(f"{path} is not a Python file", name=name, path=path)
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
        return function_of(module, path)
    except BaseException as error:
        raise Failure("load", error) from None


def function_of(module, path):
    handler = getattr(module, "handler", None)
    if not callable(handler):
        raise TypeError(f"{path} has no function: write `def handler(event, context)`")
    return handler


def call(handler, event, context):
    try:
        value = handler(event, context)
        return asyncio.run(settle(value)) if inspect.isawaitable(value) else value
    except BaseException as error:
        # sys.exit() ends the process in Python, and so it does here: with that status and without a result.
        if isinstance(error, SystemExit):
            leave(error)
        raise Failure("call", error) from None


async def settle(awaitable):
    return await awaitable


def leave(system_exit):
    code = system_exit.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


def encode(value):
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
        return text
    except ValueError as error:
        if "not JSON compliant" not in str(error):
            raise Failure("result", error) from None
        raise Failure("result", ValueError("NaN or Infinity cannot be a result: JSON has no such number")) from None
    except Exception as error:
        raise Failure("result", error) from None


# ---- errors ----------------------------------------------------------------------------------------------------------


def describe(failure):
    error = failure.error
    return json.dumps({
        "ok": False,
        "phase": failure.phase,
        "error": {
            "name": type(error).__name__,
            "message": text_of(error),
            "stack": stack_of(error),
        },
    })


def text_of(error):
    try:
        return str(error)[:TEXT_MAX]
    except Exception:
        return "(its text cannot be had)"


def stack_of(error):
    """As Python prints it, without the frames of this file and of the import machinery."""
    try:
        trace = traceback.TracebackException.from_exception(error)
        forget_own_frames(trace)
        return "".join(trace.format())[-TEXT_MAX:]
    except Exception:
        return ""


def forget_own_frames(trace):
    """Also in causes and in groups; asyncio's frames go where they only lead to the handler."""
    frames = [frame for frame in trace.stack if not is_foreign(frame.filename)]
    while frames and frames[0].filename.startswith(ASYNCIO):
        del frames[0]
    trace.stack[:] = frames
    for inner in (trace.__cause__, trace.__context__, *(trace.exceptions or ())):
        if inner is not None:
            forget_own_frames(inner)


def is_foreign(filename):
    return filename == __file__ or filename.startswith(("<frozen importlib", "<frozen runpy"))


# ---- life ------------------------------------------------------------------------------------------------------------


def warm_up():
    """Does once what the real event will do: what was imported and compiled by then is in the template.

    What it prints, the agent drops.
    """
    head = {"handler": "warm"}

    def load(path):
        module = types.ModuleType("warm")
        exec(compile(WARM_HANDLER, path, "exec"), module.__dict__)
        return function_of(module, path)

    def fail(path):
        raise Failure("load", ImportError(path))

    respond(head, load, lambda: SAMPLE_REQUEST)
    respond(head, fail, lambda: SAMPLE_REQUEST)
    print(flush=True)
    print(file=sys.stderr, flush=True)


def main():
    sys.dont_write_bytecode = True
    os.set_inheritable(REQUEST_FD, False)
    os.set_inheritable(RESULT_FD, False)
    warm_up()
    write_all("ready\n")
    await_renewal()
    # ---- In a clone from here on. ----
    try:
        renew_randomness()
    except BaseException as error:
        answer(describe(Failure("renew", error)))
    write_all("renewed\n")
    head, ahead = read_head()
    answer(serve(head) if head.get("serve") else respond(head, load_handler, lambda: read_request(ahead)))


if __name__ == "__main__":
    main()
