"""Graphs that fusion and scheduling are tested on, built from nodes."""

from __future__ import annotations

from graphflow.ir.build import NODES as b
from graphflow.ir.build import constant, input_node, splat, state_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.types import TensorType, float32, int64


def f32(*shape: int) -> TensorType:
    return TensorType(float32, shape)


def softmax(x: Node, axis: int = -1) -> Node:
    axis %= len(x.shape)
    kept = tuple(1 if k == axis else d for k, d in enumerate(x.shape))
    top = b.reshape(b.reduce_max(x, axes=(axis,)), shape=kept)
    e = b.exp(x - top)
    return e / b.reshape(b.reduce_sum(e, axes=(axis,)), shape=kept)


def layer_norm(x: Node, gamma: Node, beta: Node) -> Node:
    rows, width = x.shape
    mean = b.reshape(b.reduce_sum(x, axes=(1,)), shape=(rows, 1)) * (1.0 / width)
    centred = x - mean
    var = b.reshape(b.reduce_sum(centred * centred, axes=(1,)), shape=(rows, 1)) * (1.0 / width)
    return centred * b.rsqrt(var + 1e-5) * gamma + beta


def cross_entropy(z: Node, labels: Node) -> tuple[Node, Node]:
    """The mean loss and the cotangent of the logits."""
    rows, classes = z.shape
    column = {"shape": (rows, 1)}
    top = b.reshape(b.reduce_max(z, axes=(1,)), **column)
    shifted = z - top
    total = b.reduce_sum(b.exp(shifted), axes=(1,))
    logp = shifted - b.reshape(b.log(total), **column)
    picked = b.gather(logp, b.reshape(labels, **column), axis=1)
    loss = b.neg(b.reduce_sum(b.reshape(picked, shape=(rows,)), axes=(0,)) * (1.0 / rows))
    axis = b.iota(shape=(rows, classes), axis=1, dtype=int64)
    hit = b.eq(axis, b.reshape(labels, **column))
    ct = b.where(hit, splat(-1.0 / rows, f32(rows, 1)), constant(0.0, float32))
    back = b.reshape(b.reduce_sum(ct, axes=(1,)), **column)
    return loss, ct - b.exp(logp) * back


def momentum_step(w: Node, v: Node, gradient: Node, lr: Node) -> list[tuple[Node, Node]]:
    new_v = v * 0.9 + gradient
    return [(v, new_v), (w, w - lr * new_v)]


def mlp_step(batch: int = 128, width: int = 784, hidden: int = 128, classes: int = 10) -> Graph:
    """One step of SGD with momentum on linear, relu, linear, cross entropy."""
    images = input_node("images", f32(batch, width))
    labels = input_node("labels", TensorType(int64, (batch,)))
    lr = input_node("lr", f32())
    shapes = {"w1": (hidden, width), "b1": (hidden,), "w2": (classes, hidden), "b2": (classes,)}
    p = {name: state_node(name, f32(*shape)) for name, shape in shapes.items()}
    m = {name: state_node(f"m_{name}", f32(*shape)) for name, shape in shapes.items()}

    def transposed(x: Node) -> Node:
        return b.permute(x, axes=(1, 0))

    h = b.relu(b.matmul(images, transposed(p["w1"])) + p["b1"])
    z = b.matmul(h, transposed(p["w2"])) + p["b2"]
    loss, dz = cross_entropy(z, labels)
    dh = b.where(b.gt(h, 0.0), b.matmul(dz, p["w2"]), constant(0.0, float32))
    gradients = {
        "w1": b.matmul(transposed(dh), images),
        "b1": b.reduce_sum(dh, axes=(0,)),
        "w2": b.matmul(transposed(dz), h),
        "b2": b.reduce_sum(dz, axes=(0,)),
    }
    updates = [u for n in shapes for u in momentum_step(p[n], m[n], gradients[n], lr)]
    return Graph((images, labels, lr), (loss,), (*p.values(), *m.values()), tuple(updates))
