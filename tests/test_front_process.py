"""Compiled functions and the process around them: threads, forks, signals, exit, memory, calls."""

import gc
import os
import pathlib
import resource
import signal
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn, optim
from graphflow.utils.data import DataLoader, TensorDataset
from tests.front import linear, ramp, training_step
from tests.threads import in_threads

ROOT = pathlib.Path(__file__).parent.parent


def run_python(source, *options, timeout=300):
    """Run ``source`` in a fresh interpreter; its standard output."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(source)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_epoch_with_a_smaller_last_batch_and_a_schedule():
    """In a process of its own: what is measured is all that a process allocates."""
    run_python("from tests.test_front_process import thousand_steps; thousand_steps()")


def thousand_steps():
    """1,000 steps: the rate takes effect, one recompile, memory flat."""
    model = nn.Sequential(linear(4, 8), nn.ReLU(), linear(8, 3))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.5)
    data = TensorDataset(ramp(43, 4), gf.arange(43) % 3)
    traces = []

    @gf.compile
    def step(x, y):
        traces.append(1)
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    def epoch():
        moved = []
        for x, y in DataLoader(data, batch_size=4):
            before = model[0].weight.detach().clone()
            step(x, y)
            moved.append((model[0].weight - before).abs().max().item())
        schedule.step()
        return max(moved)

    first = epoch()
    for _ in range(10):
        epoch()
    gc.collect()
    tracemalloc.start()
    resident, grown = _resident(), []
    for _ in range(3):
        base = tracemalloc.get_traced_memory()[0]
        for _ in range(27):
            last = epoch()
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - base)
    tracemalloc.stop()
    assert len(traces) == 2 and len(step.recompiles) == 1
    assert last < first * 1e-6
    # What leaks grows each time.  Python's table of interned strings is made anew now and then,
    # and counts from the first time on: 2 MB once, where a compiler was imported (no cache yet).
    assert min(grown) < 21 * 1024, f"{grown} bytes more after 297 steps each"
    assert _resident() - resident < 32 * 2**20


def _resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_no_reference_cycles_after_a_step():
    model = linear()
    opt = optim.Adam(model.parameters(), lr=0.1)
    step = training_step(model, opt, gf.compile)
    forward = gf.compile(lambda x: model(x))
    x = ramp(5, 4)

    def work():
        step(x)
        opt.zero_grad()
        forward(x).pow(2).sum().backward()
        model(x).sum().backward()
        with gf.no_grad():
            model.weight[0].mul_(0.5)

    work()
    work()
    gc.collect()
    gc.disable()
    try:
        work()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [o for o in gc.garbage if type(o).__module__.startswith("graphflow")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not ours, {type(o).__name__ for o in ours}


def test_a_compiled_function_can_be_collected():
    import weakref

    model = linear()
    step = training_step(model, optim.SGD(model.parameters(), lr=0.1), gf.compile)
    step(ramp(5, 4))
    program, module = weakref.ref(step.programs[0]), weakref.ref(model)
    del step, model
    gc.collect()
    assert program() is None and module() is None


def python_calls(depth):
    layers = [layer for _ in range(depth) for layer in (linear(4, 4), nn.Tanh())]
    model = nn.Sequential(*layers)
    step = training_step(model, optim.SGD(model.parameters(), lr=0.01, momentum=0.9), gf.compile)
    x = ramp(5, 4)
    for _ in range(3):
        step(x)
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(event) if "call" in event else None)
    try:
        step(x)
    finally:
        sys.setprofile(None)
    return len(calls)


def test_python_calls_of_a_step_do_not_depend_on_depth():
    assert python_calls(1) == python_calls(10) < 60


def test_threads_call_one_function_with_several_signatures():
    w = ramp(3)
    traces = []

    @gf.compile
    def f(x, scale):
        traces.append(1)
        return (x * w * scale).sum()

    sizes = [(n, 3) for n in (1, 2, 5)]
    expected = {size: (ramp(*size) * w).sum().item() for size in sizes}

    def work(number):
        for i in range(60):
            size, scale = sizes[(i + number) % 3], float(number + 1)
            got = f(ramp(*size), scale).item()
            assert np.isclose(got, expected[size] * scale, rtol=1e-5), (size, scale, got)

    in_threads(4, work)
    assert len(traces) == 3


def test_threads_that_train_one_model_lose_no_step():
    counter = gf.tensor(0)

    @gf.compile
    def step(x):
        counter.add_(1)
        return x * counter

    def work(number):
        for _ in range(200):
            step(gf.ones(2))

    in_threads(3, work)
    assert counter.item() == 600


def test_threads_write_their_own_arguments():
    f = gf.compile(lambda x: x.add_(1) * 0)
    tensors = [gf.zeros(4) for _ in range(4)]

    def work(number):
        for _ in range(100):
            f(tensors[number])

    in_threads(4, work)
    for x in tensors:
        np.testing.assert_array_equal(x.numpy(), np.full(4, 100))


def test_gradient_mode_of_one_thread_is_its_own():
    with gf.no_grad():
        assert in_threads(1, lambda number: gf.is_grad_enabled()) == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_after_a_compiled_step():
    source = """
        import os, signal, graphflow as gf
        model = gf.nn.Linear(64, 64)
        opt = gf.optim.SGD(model.parameters(), lr=0.1)
        @gf.compile
        def step(x):
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss
        x = gf.ones(256, 64)
        step(x)
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                signal.alarm(200)
                fresh = gf.compile(lambda v: v * 2 + 1)
                ok = step(x).item() > 0 and fresh(x).sum().item() == 3 * x.numel()
                os._exit(0 if ok else 1)
            children.append(pid)
        print([os.waitpid(pid, 0)[1] for pid in children], step(x).item() > 0)
    """
    assert run_python(source).strip() == "[0, 0, 0] True"


def test_ctrl_c_during_steps_and_then_on():
    source = """
        import os, signal, threading, time, graphflow as gf
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs us may ignore it
        w = gf.zeros(300, 300)
        @gf.compile
        def step(x):
            w.add_(1)
            return (x @ x).sum() + w.sum()
        x = gf.ones(300, 300)
        step(x)
        def interrupt():
            assert going.wait(100)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        going = threading.Event()
        threading.Thread(target=interrupt).start()
        started = time.time()
        try:
            while time.time() - started < 200:
                step(x)
                going.set()
            print("never interrupted")
        except KeyboardInterrupt:
            before = w[0, 0].item()
            step(x)
            print(w[0, 0].item() - before)
    """
    assert run_python(source).strip() == "1.0"


def test_exit_is_clean_with_work_under_way():
    source = """
        import threading, graphflow as gf
        f = gf.compile(lambda x: (x @ x).tanh())
        x = gf.ones(200, 200)
        f(x)
        def forever():
            while True:
                f(x)
        threading.Thread(target=forever, daemon=True).start()
        print("bye")
    """
    assert run_python(source).strip() == "bye"


def test_code_without_a_file():
    source = """
        import graphflow as gf
        space = {"gf": gf}
        exec("def f(x, s):\\n    return gf.tanh(x) * s\\n", space)
        compiled = gf.compile(space["f"])
        print(compiled(gf.zeros(2), 2.0).tolist())
        print(gf.compile(lambda x: x + 1)(gf.zeros(1)).item())
        try:
            gf.compile(lambda x: 1 if x.sum() > 0 else 2)(gf.ones(2))
        except gf.TraceError as error:
            print("<string>" in str(error))
        print(compiled.explain().kernels[0].user_lines[0].startswith("<string>"))
    """
    assert run_python(source).split("\n")[:4] == ["[0.0, 0.0]", "1.0", "True", "True"]


def test_the_interactive_prompt():
    lines = "import graphflow as gf\n@gf.compile\ndef f(x):\n    return x * 2\n\nf(gf.ones(2))\n"
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=lines, capture_output=True, text=True, cwd=ROOT
    )
    assert "tensor([2., 2.])" in done.stdout, done.stderr


def test_a_signal_handler_may_call_the_function_it_interrupts():
    calls = []
    f = gf.compile(lambda x: x + 1)
    f(gf.ones(2))
    held = signal.signal(signal.SIGALRM, lambda *_: calls.append(f(gf.ones(3)).sum().item()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        while not calls:
            f(gf.ones(2))
    finally:
        signal.signal(signal.SIGALRM, held)
    assert calls == [6.0]
