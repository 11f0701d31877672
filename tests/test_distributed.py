"""Collectives in programs and around them, without MPI: one rank, or others that are made up."""

import copy
import itertools
import subprocess
import sys

import numpy as np
import pytest

import graphflow as gf
import graphflow.distributed as dist
from graphflow.codegen.build_schedule import build_schedule
from graphflow.codegen.order import run_order
from graphflow.codegen.schedule import Call, HostCall
from graphflow.codegen.schedule_form import from_bytes, to_bytes
from graphflow.distributed import process_group
from graphflow.distributed.process_group import ProcessGroup
from graphflow.errors import DTypeError, GraphError, GraphFlowError, TraceError
from graphflow.ir.build import emit, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.op import ROOM_HEAD
from graphflow.ir.ops.collectives import use_transport
from graphflow.ir.types import TensorType, float32, int64
from graphflow.nn.parallel import DataParallel, DistributedDataParallel, data_parallel
from graphflow.nn.parallel.distributed import buckets
from graphflow.passes.pipeline import run_pipeline
from graphflow.runtime.storage import address_of
from graphflow.testing import assert_close


@pytest.fixture
def alone():
    dist.init_process_group("mpi")
    yield
    dist.destroy_process_group()


class Twins:
    """A transport whose other rank has the same values, and which notes what is done."""

    def __init__(self):
        self.numbers, self.begun, self.log = itertools.count(1), {}, []

    def start(self, arrays, reduce, group, finite, parts=()):
        number = next(self.numbers)
        flat = np.concatenate([np.ravel(a) for a in arrays])
        self.begun[number] = 2 * flat if reduce == "sum" else flat
        self.log.append(("start", flat.size, reduce))
        return number

    def wait(self, ticket, into=None):
        found = self.begun.pop(ticket)
        self.log.append(("wait", found.size))
        return found

    def rooms(self, wanted):
        return None

    def carrier(self):
        return "twins agree"


@pytest.fixture
def twins(monkeypatch):
    """Two ranks, as far as programs can see."""
    dist.init_process_group("mpi")
    world = ProcessGroup(0, (0, 1))
    process_group._joined[0].groups[0] = world
    carrier = Twins()
    use_transport(carrier)
    yield carrier
    dist.destroy_process_group()


def training(wrap, width=16, batch_size=8, **options):
    """A model, its step, and the batch it takes."""
    gf.manual_seed(3)
    model = gf.nn.Sequential(gf.nn.Linear(6, width), gf.nn.Tanh(), gf.nn.Linear(width, 3))
    wrapped = wrap(model, **options)
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = gf.nn.functional.mse_loss(wrapped(x), y)
        loss.backward()
        optimizer.step()
        return loss

    batch = gf.randn(batch_size, 6), gf.randn(batch_size, 3)
    return model, step, batch


# ---- one rank -----------------------------------------------------------------------------------


def test_nothing_works_before_joining_and_joining_twice_is_an_error(alone):
    with pytest.raises(GraphFlowError, match="initialised already"):
        dist.init_process_group()
    dist.destroy_process_group()
    assert not dist.is_initialized()
    with pytest.raises(GraphFlowError, match="init_process_group"):
        dist.get_rank()
    dist.init_process_group(world_size=1, rank=0, timeout=3)


def test_a_process_by_itself_is_the_only_rank(alone):
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, "mpi")
    x = gf.arange(6.0).reshape(2, 3)
    before = x.tolist()
    for op in dist.ReduceOp:
        dist.all_reduce(x, op)
    dist.reduce(x, 0)
    dist.broadcast(x, 0)
    dist.barrier()
    assert x.tolist() == before
    out = gf.zeros(2, 3)
    dist.all_gather([out], x)
    assert out.tolist() == before
    for call in (
        lambda: dist.gather(x, [out]),
        lambda: dist.scatter(out, [x]),
        lambda: dist.reduce_scatter(out, [x]),
        lambda: dist.all_gather_into_tensor(out, x),
        lambda: dist.reduce_scatter_tensor(out, x, dist.ReduceOp.AVG),
    ):
        out.zero_()
        call()
        assert out.tolist() == before
    work = dist.all_reduce(x, async_op=True)
    assert work.wait() and work.is_completed()


def test_objects_and_groups_of_one_rank(alone):
    found = [None]
    dist.all_gather_object(found, {"a": (1, 2)})
    assert found == [{"a": (1, 2)}]
    dist.broadcast_object_list(found)
    assert found == [{"a": (1, 2)}]
    group = dist.new_group([0])
    assert dist.get_process_group_ranks(group) == [0] and dist.get_rank(group) == 0
    assert dist.get_global_rank(group, 0) == dist.get_group_rank(group, 0) == 0
    with pytest.raises(GraphFlowError, match="no group"):
        dist.new_group([1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dist.all_reduce([1.0]), TypeError, "takes tensors"),
        (lambda: dist.all_reduce(gf.ones(2), "sum"), GraphFlowError, "ReduceOp.SUM"),
        (lambda: dist.all_reduce(gf.arange(2), dist.ReduceOp.AVG), GraphFlowError, "floating"),
        (lambda: dist.broadcast(gf.ones(2), 3), GraphFlowError, "rank 3 is not in the group"),
        (lambda: dist.all_gather([], gf.ones(2)), GraphFlowError, "0 tensors for 1 ranks"),
        (lambda: dist.all_gather([gf.ones(3)], gf.ones(2)), gf.ShapeError, "one type"),
        (lambda: dist.send(gf.ones(2), 0), GraphFlowError, "this process itself"),
        (lambda: dist.new_group([0, 0]), GraphFlowError, "no group"),
        (lambda: dist.all_reduce(gf.ones(2), group=3), TypeError, "ProcessGroup"),
    ],
)  # fmt: skip
def test_misuse_is_one_clear_error(alone, call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "smoke"}, "no backend 'smoke'"),
        ({"backend": "nccl"}, "binding of NCCL"),
        ({"world_size": 4}, "graphflow launch -n 4"),
        ({"timeout": 0}, "positive"),
    ],
)
def test_joining_what_is_not_there(arguments, message):
    with pytest.raises(GraphFlowError, match=message):
        dist.init_process_group(**arguments)
    assert not dist.is_initialized()


def test_collectives_but_all_reduce_stay_out_of_graphs(alone):
    with pytest.raises(TraceError, match=r"distributed\.broadcast in a compiled function"):
        gf.compile(lambda x: dist.broadcast(x, 0))(gf.ones(2))


def test_one_rank_trains_as_without_any(alone):
    plain, step, batch = training(lambda model: model)
    wrapped, parallel, _ = training(DistributedDataParallel)
    step, parallel = gf.compile(step), gf.compile(parallel)
    for _ in range(3):
        assert step(*batch).item() == parallel(*batch).item()
    assert "all_reduce" not in str(gf.trace(parallel, *batch))
    for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert a.tolist() == b.tolist()


def test_data_parallel_forwards_calls():
    model = DataParallel(gf.nn.Linear(3, 2), device_ids=[0])
    assert list(model.state_dict()) == ["module.weight", "module.bias"]
    assert gf.nn.DataParallel is DataParallel
    assert model(gf.ones(4, 3)).shape == (4, 2)
    x = gf.ones(4, 3)
    assert data_parallel(model, x, range(1)).tolist() == model(x).tolist()
    for wrong in (DataParallel, lambda m, device_ids: data_parallel(m, x, device_ids)):
        with pytest.raises(GraphFlowError, match="DistributedDataParallel"):
            wrong(model, device_ids=[0, 1])


def test_importing_graphflow_does_not_import_this():
    code = "import graphflow, sys; print([m for m in sys.modules if 'distributed' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ---- in graphs ----------------------------------------------------------------------------------


def test_an_all_reduce_in_a_compiled_function_is_ordered_and_keeps_its_place(twins):
    @gf.compile
    def function(x):
        y = x * 2.0
        dist.all_reduce(y)
        z = y + 1.0
        dist.all_reduce(z, dist.ReduceOp.MAX)
        return z

    for _ in range(2):
        assert function(gf.ones(3)).tolist() == [5.0] * 3
    assert twins.log == 2 * [("start", 3, "sum"), ("wait", 3), ("start", 3, "max"), ("wait", 3)]
    text = str(gf.trace(function, gf.ones(3)))
    assert text.count("all_reduce_start(") == text.count("all_reduce(") == 2
    assert str(Graph.parse(text)) == text


def test_an_unused_all_reduce_is_still_done(twins):
    @gf.compile
    def function(x):
        y = x * 2.0
        dist.all_reduce(y)
        return x

    function(gf.ones(3))
    assert twins.log[0] == ("start", 3, "sum")


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_gradients_through_an_all_reduce(twins, compiled):
    def function(x):
        (gradient,) = gf.autograd.grad((dist.nn.all_reduce(x) ** 2).sum(), x, create_graph=True)
        (again,) = gf.autograd.grad(gradient.sum(), x)
        return gradient, again

    x = gf.tensor([1.0, -2.0], requires_grad=True)
    first, second = (gf.compile(function) if compiled else function)(x)
    # Each rank's loss is |2 x|²; both have an x, so d/dx of both is 2 · 2 · 2x.
    assert first.tolist() == [8.0, -16.0]
    assert second.tolist() == [8.0, 8.0]


def test_gradients_of_graphs_pass_through_an_all_reduce(twins):
    found = gf.grad(lambda x: (dist.nn.all_reduce(x, dist.ReduceOp.AVG) * x).sum())(gf.ones(2))
    assert found.tolist() == [2.0, 2.0]
    with pytest.raises(GraphFlowError, match="max over ranks has no gradient"):
        gf.grad(lambda x: dist.nn.all_reduce(x, dist.ReduceOp.MAX).sum())(gf.ones(2))


def test_the_body_of_a_loop_has_no_all_reduce(twins):
    def body(x):
        y = x * 2.0
        dist.all_reduce(y)
        return y

    with pytest.raises(TraceError, match=r"the body calls distributed\.all_reduce"):
        gf.compile(lambda x: gf.while_loop(lambda v: v.sum() < 9, body, x))(gf.ones(2))


@pytest.mark.parametrize(
    ("types", "attrs", "error", "message"),
    [
        ([(int64, ())], {}, DTypeError, "at least one more operand"),
        ([(int64, ()), (float32, (2,)), (int64, (2,))], {}, DTypeError, "different dtypes"),
        ([(int64, ()), (int64, (2,))], {"reduce": "avg"}, DTypeError, "floating-point"),
        ([(int64, ()), (float32, (2,))], {"reduce": "mode"}, GraphError, "no reduction 'mode'"),
    ],
)
def test_the_type_rule_names_what_is_wrong(types, attrs, error, message):
    operands = [input_node(f"x{i}", TensorType(*type)) for i, type in enumerate(types)]
    options = {"reduce": "sum", "group": 0, "finite": False, **attrs}
    with pytest.raises(error, match=message):
        emit("all_reduce_start", *operands, **options)


# ---- DistributedDataParallel --------------------------------------------------------------------


def wrapped_for_twins(model, **options):
    return DistributedDataParallel(model, init_sync=False, **options)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_equal_ranks_train_as_one(twins, compiled):
    plain, step, batch = training(lambda model: model)
    parallel, shared, _ = training(wrapped_for_twins, broadcast_buffers=False)
    if compiled:
        step, shared = gf.compile(step), gf.compile(shared)
    for _ in range(3):
        assert step(*batch).item() == pytest.approx(shared(*batch).item(), rel=1e-6)
    assert [entry[0] for entry in twins.log] == ["start", "wait"] * 3
    for a, b in zip(plain.parameters(), parallel.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_messages_begin_during_the_backward_pass_and_end_after_it(twins):
    # Large enough that none of the matrices counts as small, which run ahead of others.
    options = {"bucket_cap_mb": 1e-5, "broadcast_buffers": False}
    _, step, batch = training(wrapped_for_twins, 200, 200, **options)
    step(*batch)  # so that the optimiser's memory is there
    graph = run_pipeline(gf.trace(step, *batch))[-1].graph
    steps = build_schedule(graph).steps
    names = [s.name if isinstance(s, HostCall) else "kernel" for s in steps]
    starts = [i for i, name in enumerate(names) if name == "all_reduce_start"]
    waits = [i for i, name in enumerate(names) if name == "all_reduce_wait"]
    assert len(starts) == len(waits) == 4
    assert starts[-1] < waits[0], "no wait before the last start"
    assert "kernel" in names[starts[0] : starts[-1]], "the first message begins before the end"
    first_write = min(
        i for i, s in enumerate(steps)
        if isinstance(s, Call) and s.writes & set(build_schedule(graph).committed)
    )  # fmt: skip
    assert waits[-1] < first_write, "no state is written before every message has arrived"


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_no_sync_keeps_gradients_here(twins, compiled):
    gf.manual_seed(0)
    model = gf.nn.Linear(3, 2)
    parallel = wrapped_for_twins(model)

    def accumulate(x):
        parallel(x).sum().backward()

    run = gf.compile(accumulate, keep_grads=True) if compiled else accumulate
    with parallel.no_sync():
        run(gf.ones(1, 3))
    assert twins.log == []
    assert model.bias.grad.tolist() == [1.0, 1.0]
    run(gf.ones(1, 3))
    assert [entry[0] for entry in twins.log] == ["start", "wait"]
    assert model.bias.grad.tolist() == [2.0, 2.0]


def test_unused_parameters_take_part_with_zeros_if_told(twins):
    model = gf.nn.ModuleList([gf.nn.Linear(2, 2), gf.nn.Linear(2, 2)])
    parallel = wrapped_for_twins(model, find_unused_parameters=True)
    parallel.forward = lambda x: model[0](x)
    parallel(gf.ones(1, 2)).sum().backward()
    assert model[1].weight.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert twins.log[0] == ("start", 12, "avg")


def test_buckets_are_filled_from_the_end_up_to_their_size():
    sizes = [10, 20, 200_000, 200_000, 5]
    parameters = [gf.zeros(n) for n in sizes]
    found = [[p.numel() for p in bucket] for bucket in buckets(parameters, 1 << 30)]
    assert found == [[5, 200_000], [200_000, 20, 10]]  # the first holds a megabyte at most
    whole = [len(bucket) for bucket in buckets(parameters, 1 << 30, first=1 << 30)]
    assert whole == [5], "ranks that share memory have no small first bucket"
    tiny = [[p.numel() for p in bucket] for bucket in buckets(parameters, 1)]
    assert tiny == [[5], [200_000], [200_000], [20], [10]]
    mixed = [gf.zeros(2), gf.zeros(2, dtype=gf.float64), gf.zeros(2)]
    assert [len(bucket) for bucket in buckets(mixed, 1 << 20)] == [2, 1]


def test_what_cannot_be_wrapped_is_refused(alone):
    with pytest.raises(TypeError, match="wraps a Module"):
        DistributedDataParallel(gf.ones(2))
    with pytest.raises(GraphFlowError, match="without parameters"):
        DistributedDataParallel(gf.nn.ReLU())


# ---- the schedule -------------------------------------------------------------------------------


def test_early_vertices_run_at_once_and_late_ones_when_nothing_else_is_left():
    chain = [[1, 2], [3], [4], [5], [5], []]
    assert run_order(chain) == [0, 1, 3, 2, 4, 5]
    assert run_order(chain, early={2}) == [0, 2, 4, 1, 3, 5]
    assert run_order([[1, 2, 3], [4], [4], [4], []], early={3}) == [0, 3, 1, 2, 4]
    assert run_order(chain, late={1}) == [0, 2, 4, 1, 3, 5]
    assert run_order([[1], [], [3], []], late={0, 2}) == [0, 1, 2, 3]


# ---- rooms --------------------------------------------------------------------------------------


class Lender(Twins):
    """Says where vectors should lie: one after the other in memory of its own."""

    def __init__(self):
        super().__init__()
        self.memory, self.there = np.zeros(4096, np.float32), []

    def rooms(self, wanted):
        sizes = (type.static_bytes for type, *_ in wanted.vectors)
        begins = itertools.accumulate(sizes, initial=ROOM_HEAD)
        return [address_of(self.memory) + begin for begin, _ in zip(begins, wanted.vectors)]

    def start(self, arrays, reduce, group, finite, parts=()):
        self.there.append([address_of(a) - address_of(self.memory) for a in arrays])
        self.shapes = [type.static_shape for type in parts]
        return super().start(arrays, reduce, group, finite)


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_are_made_where_the_transport_says(twins, threads):
    def losses(carrier, compiled):
        use_transport(carrier)
        options = {"bucket_cap_mb": 1e-3, "broadcast_buffers": False}
        model, step, batch = training(wrapped_for_twins, 40, **options)
        step = gf.compile(step) if compiled else step
        found = [step(*batch).item() for _ in range(4)]
        return found, [p.detach().numpy().copy() for p in model.parameters()]

    before = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        expected, parameters = losses(Twins(), False)
        lender = Lender()
        found, others = losses(lender, True)
    finally:
        gf.set_num_threads(before)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for a, b in zip(parameters, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    # All gradients but the first layer's weight are one bucket; optimisers have memory from the
    # second step on.
    assert lender.there[-2:] == [[ROOM_HEAD], [ROOM_HEAD + 4 * (3 * 40 + 3 + 40)]]
    assert lender.shapes == [(40, 6)]


def test_kernels_write_gradients_in_rooms_and_what_has_a_place_is_copied_there(twins):
    def function(x, y):
        made = (x * 3.0).exp()
        dist.all_reduce(made)
        dist.all_reduce(shown := y.t())  # an input, in another order
        return made, shown

    graph = run_pipeline(gf.trace(function, gf.ones(20, 30), gf.ones(4, 5)))[-1].graph
    schedule = build_schedule(graph)
    copy = from_bytes(to_bytes(schedule))
    for steps, buffers in [(s.steps, s.buffers) for s in (schedule, copy)]:
        starts = [s for s in steps if isinstance(s, HostCall) and s.rooms]
        rooms = [call.inputs[1][0] for call in starts]
        assert [buffers[room].type.shape for room in rooms] == [(600,), (20,)]
        assert {type.shape for call in starts for type in call.parts} == {(20, 30), (5, 4)}
        for room in rooms:
            parts = {b.id for b in buffers if b.base == room}
            writers = [s for s in steps if isinstance(s, Call) and s.writes & parts]
            assert len(writers) == 1 and not writers[0].writes - parts
        assert not any(isinstance(s, Call) and s.reads & set(rooms) for s in steps)
    x, y = gf.randn(20, 30), gf.randn(4, 5)
    compiled = gf.compile(function)
    for _ in range(2):
        found = compiled(x, y.clone())
        np.testing.assert_allclose(found[0].numpy(), 2 * np.exp(3 * x.numpy()), rtol=1e-5)
        np.testing.assert_allclose(found[1].numpy(), 2 * y.numpy().T)


@pytest.mark.parametrize("compiled", [False, True])
def test_synchronised_batch_norms_see_the_samples_of_every_rank(twins, compiled):
    plain = gf.nn.Sequential(gf.nn.BatchNorm2d(3), gf.nn.ReLU())
    with gf.no_grad():
        plain[0].weight.copy_(gf.tensor([0.5, 1.0, 2.0]))
    model = gf.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    assert isinstance(model[0], gf.nn.SyncBatchNorm)
    assert list(model.state_dict()) == list(plain.state_dict())
    x = gf.tensor(np.random.default_rng(4).standard_normal((2, 3, 4, 4)).astype(np.float32))

    def gradients(layer, x, weight):
        x = x.clone().requires_grad_()
        out = layer(x)
        return out, *gf.autograd.grad((out * weight).sum(), [x, layer[0].weight, layer[0].bias])

    weight = gf.tensor(np.random.default_rng(5).standard_normal(x.shape).astype(np.float32))
    both = [gf.cat([x, x]), gf.cat([weight, weight])]
    out, *wanted = gradients(plain, *both)
    ready = gf.compile(gradients) if compiled else gradients
    found, *grads = ready(model, x, weight)
    assert_close(found, out[:2])
    assert_close(grads[0], wanted[0][:2])
    for a, b in zip(grads[1:], wanted[1:]):  # a rank's own part: averaged where gradients are
        assert_close(2 * a, b)
    assert_close(dict(model.state_dict()), dict(plain.state_dict()))
    assert_close(model.eval()(x), plain.eval()(x))
