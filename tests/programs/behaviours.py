"""Small programs whose numbers must be PyTorch's, eager and compiled.

Every program takes ``torch`` (the real one when recording, GraphFlow in the
tests) and ``jit`` (identity, or ``gf.compile``), and returns a list of numbers.
``record.py`` writes PyTorch's answers to ``expected.json``.
"""

import math

PROGRAMS = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def ramp(torch, *shape, scale=0.1, offset=-0.7):
    count = math.prod(shape)
    values = [math.sin(1.7 * i) + scale * (i % 5) + offset for i in range(count)]
    return torch.tensor(values, dtype=torch.float32).reshape(*shape)


def flat(*tensors):
    out = []
    for t in tensors:
        out += t.detach().reshape(-1).tolist() if hasattr(t, "detach") else [t]
    return out


def linear_model(torch, out=3):
    model = torch.nn.Linear(4, out)
    with torch.no_grad():
        model.weight.copy_(ramp(torch, out, 4))
        model.bias.copy_(ramp(torch, out, offset=0.2))
    return model


@program
def sgd_with_momentum(torch, jit):
    model = linear_model(torch)
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    x, y = ramp(torch, 5, 4), torch.tensor([0, 2, 1, 1, 0])

    @jit
    def step(x, y):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return [step(x, y).item() for _ in range(5)] + flat(*model.parameters())


@program
def nesterov_and_dampening(torch, jit):
    results = []
    for options in ({"nesterov": True}, {"dampening": 0.3}):
        model = linear_model(torch)
        opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8, **options)
        x = ramp(torch, 5, 4)

        @jit
        def step(x, model=model, opt=opt):
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            opt.step()
            return loss

        results += [step(x).item() for _ in range(4)] + flat(*model.parameters())
    return results


@program
def adam_and_adamw(torch, jit):
    results = []
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        model = linear_model(torch)
        opt = kind(model.parameters(), lr=0.02, weight_decay=0.1)
        x = ramp(torch, 5, 4)

        @jit
        def step(x, model=model, opt=opt):
            opt.zero_grad()
            loss = torch.tanh(model(x)).pow(2).sum()
            loss.backward()
            opt.step()
            return loss

        results += [step(x).item() for _ in range(4)] + flat(*model.parameters())
    return results


@program
def no_grad_twin(torch, jit):
    """The same product with and without history must not be confused."""
    w = ramp(torch, 3).requires_grad_()

    @jit
    def step(x):
        with torch.no_grad():
            frozen = w * x
        live = w * x
        w.grad = None
        (live * frozen).sum().backward()
        return frozen, live

    a, b = step(ramp(torch, 3, offset=0.4))
    return flat(a, b, w.grad)


@program
def detach_twin(torch, jit):
    w = ramp(torch, 3).requires_grad_()

    @jit
    def step(x):
        w.grad = None
        y = torch.exp(w)
        (y * y.detach() * x).sum().backward()
        return y

    return flat(step(ramp(torch, 3, offset=0.4)), w.grad)


@program
def mutation_through_a_view(torch, jit):
    @jit
    def step(x):
        y = x * 2
        row = y[1]
        column = y[:, 0]
        row.add_(10)
        column.mul_(3)
        return y, row, column

    return flat(*step(ramp(torch, 3, 4)))


@program
def gradient_through_in_place_view(torch, jit):
    w = ramp(torch, 3, 4).requires_grad_()

    @jit
    def step(x):
        w.grad = None
        y = w * x
        y[1:].mul_(2)
        y[0, 1] = 5.0
        (y * y).sum().backward()
        return y

    return flat(step(ramp(torch, 3, 4, offset=0.3)), w.grad)


@program
def tied_weights(torch, jit):
    first, second = linear_model(torch, 4), linear_model(torch, 4)
    second.weight = first.weight
    opt = torch.optim.SGD(list(dict.fromkeys([*first.parameters(), *second.parameters()])), lr=0.1)

    @jit
    def step(x):
        opt.zero_grad()
        loss = second(torch.tanh(first(x))).pow(2).mean()
        loss.backward()
        opt.step()
        return loss

    x = ramp(torch, 5, 4)
    return [step(x).item() for _ in range(3)] + flat(first.weight, second.weight, second.bias)


@program
def accumulation_over_calls(torch, jit):
    model = linear_model(torch)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)

    @jit
    def forward_backward(x):
        loss = model(x).pow(2).mean()
        loss.backward()
        return loss

    results = []
    for round in range(2):
        for i in range(3):
            results.append(forward_backward(ramp(torch, 2, 4, offset=0.1 * i + round)).item())
        results += flat(model.weight.grad, model.bias.grad)
        opt.step()
        opt.zero_grad()
    return results + flat(*model.parameters())


@program
def hooks_change_gradients(torch, jit):
    w = ramp(torch, 4).requires_grad_()
    w.register_hook(lambda g: g * 2)

    @jit
    def step(x):
        w.grad = None
        y = w * x
        y.register_hook(lambda g: g + 1)
        y.sum().backward()
        return y

    return flat(step(ramp(torch, 4, offset=0.3)), w.grad)


@program
def double_backward(torch, jit):
    w = ramp(torch, 4).requires_grad_()

    @jit
    def step(x):
        w.grad = None
        y = (torch.tanh(w * x) ** 3).sum()
        (g,) = torch.autograd.grad(y, w, create_graph=True)
        (g * g).sum().backward()
        return g

    return flat(step(ramp(torch, 4, offset=0.6)), w.grad)


@program
def returned_input_and_parameter(torch, jit):
    w = torch.nn.Parameter(ramp(torch, 3))

    @jit
    def step(x):
        with torch.no_grad():
            w.add_(x)
        return x, w, w * 2

    x = ramp(torch, 3, offset=0.3)
    a, b, c = step(x)
    same = [float(a is x), float(b is w)]
    with torch.no_grad():
        w.mul_(0)
    return same + flat(a, b, c)


@program
def parameter_replaced_between_steps(torch, jit):
    model = linear_model(torch)

    @jit
    def step(x):
        return model(x).sum()

    x = ramp(torch, 2, 4)
    results = [step(x).item()]
    model.weight = torch.nn.Parameter(ramp(torch, 3, 4, offset=1.0))
    results.append(step(x).item())
    model.bias.data = ramp(torch, 3, offset=2.0)
    results.append(step(x).item())
    model.load_state_dict({"weight": ramp(torch, 3, 4), "bias": ramp(torch, 3)})
    results.append(step(x).item())
    return results


@program
def in_place_on_a_captured_tensor(torch, jit):
    counter = torch.zeros(2)

    @jit
    def step(x):
        counter.add_(1)
        return x * counter

    results = []
    for _ in range(3):
        results += flat(step(ramp(torch, 2)))
    return results + flat(counter)


@program
def two_aliased_arguments(torch, jit):
    @jit
    def step(a, b):
        a.add_(1)
        return a * b

    x, y = ramp(torch, 3), ramp(torch, 3, offset=0.5)
    results = flat(step(x, y), x, y)
    return results + flat(step(x, x), x)


@program
def mutated_argument(torch, jit):
    @jit
    def step(x):
        x.mul_(2)
        y = x + 1
        x[0] = 7.0
        return y

    x = ramp(torch, 4)
    return flat(step(x), x, step(x), x)


@program
def frozen_half(torch, jit):
    first, second = linear_model(torch, 4), linear_model(torch, 2)
    first.requires_grad_(False)

    @jit
    def step(x):
        loss = second(torch.relu(first(x))).pow(2).sum()
        loss.backward()
        return loss

    x = ramp(torch, 3, 4)
    results = [step(x).item()] + flat(second.weight.grad)
    second.weight.grad = None
    second.bias.grad = None
    first.weight.requires_grad_(True)
    results += [step(x).item()] + flat(first.weight.grad, second.weight.grad)
    return results + [float(first.bias.grad is None)]


@program
def scheduler_between_steps(torch, jit):
    model = linear_model(torch)
    opt = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.1)

    @jit
    def step(x):
        opt.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        opt.step()
        return loss

    results = []
    for _ in range(5):
        results.append(step(ramp(torch, 3, 4)).item())
        schedule.step()
    return results + flat(model.weight)


@program
def unused_parameter_and_modes(torch, jit):
    model = torch.nn.Sequential(linear_model(torch, 4), torch.nn.Dropout(0.5), torch.nn.ReLU())
    extra = linear_model(torch, 2)
    opt = torch.optim.SGD([*model.parameters(), *extra.parameters()], lr=0.1)

    @jit
    def step(x):
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return loss

    model.eval()
    results = [step(ramp(torch, 3, 4)).item() for _ in range(2)]
    return results + flat(extra.weight, model[0].weight) + [float(extra.weight.grad is None)]


@program
def float_argument(torch, jit):
    @jit
    def step(x, scale, flag):
        return x * scale + (1.0 if flag else -1.0)

    x = ramp(torch, 3)
    return flat(step(x, 0.5, True), step(x, 2.5, True), step(x, 2.5, False))


@program
def compiled_forward_backward_outside(torch, jit):
    model = linear_model(torch)
    forward = jit(model)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    results = []
    for i in range(3):
        opt.zero_grad()
        loss = torch.tanh(forward(ramp(torch, 3, 4, offset=0.1 * i))).pow(2).sum()
        loss.backward()
        opt.step()
        results.append(loss.item())
    return results + flat(*model.parameters())


@program
def reductions_and_indexing(torch, jit):
    w = ramp(torch, 4, 5).requires_grad_()

    @jit
    def step():
        w.grad = None
        values, where = w.max(dim=1)
        spread = w.var(dim=0) + w.std()
        picked = torch.gather(w, 1, torch.tensor([[0, 1], [2, 2], [4, 0], [3, 3]]))
        total = values.sum() + spread.sum() + (picked**2).sum() + torch.logsumexp(w, 1).sum()
        total = total + w[:, 1:4:2].prod() + w.amin() * w.norm()
        total.backward()
        return values, where.float(), spread, total

    return flat(*step(), w.grad)


@program
def losses(torch, jit):
    F = torch.nn.functional
    x = ramp(torch, 4, 3).requires_grad_()
    target = torch.tensor([2, 0, -100, 1])
    soft = torch.softmax(ramp(torch, 4, 3, offset=0.9), 1)

    @jit
    def step():
        x.grad = None
        parts = [
            F.cross_entropy(x, target),
            F.cross_entropy(x, soft),
            F.cross_entropy(x, target, weight=torch.tensor([0.2, 1.5, 0.7])),
            F.cross_entropy(x, target, label_smoothing=0.1),
            F.mse_loss(x, soft),
            F.l1_loss(x, soft, reduction="sum"),
            F.smooth_l1_loss(x, soft),
            F.binary_cross_entropy(torch.sigmoid(x), soft),
            F.binary_cross_entropy_with_logits(x, soft),
            F.gelu(x).sum() + F.silu(x).sum() + F.softplus(x).sum() + F.mish(x).sum(),
            F.layer_norm(x, (3,)).pow(3).sum(),
        ]
        total = sum(parts)
        total.backward()
        return parts

    return flat(*step(), x.grad)
