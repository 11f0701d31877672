"""What the computed laws of simplification do, and where they do nothing."""

from __future__ import annotations

LEAVES = """\
  %x: f32[2,3,4] = input(name="x")
  %v: f32[4] = input(name="v")
  %r: f32[1,4] = input(name="r")
  %s: f32[] = input(name="s")
  %i: i64[4] = input(name="i")
  %j: i64[4] = input(name="j")
  %h: i32[4] = input(name="h")
  %b: bool[4] = input(name="b")
  %e: f32[0,4] = input(name="e")
  %w1: f64[1,131072] = input(name="w1")
"""

EXAMPLES = [
    ("neg(sub(%x, %y))", "%0 = sub(%i, %j)\n%1 = neg(%0)", "%1 = sub(%j, %i)"),
    ("abs(neg(%x))", "%0 = neg(%v)\n%1 = abs(%0)", "%1 = abs(%v)"),
    ("where(logical_not(%c), %x, %y)", "%n = logical_not(%b)\n%1 = where(%n, %v, %s)",
     "%1 = where(%b, %s, %v)"),
    ("div(%x, %y)", "%c: f32[] = constant(8.0)\n%1 = div(%v, %c)",
     "%c: f32[] = constant(0.125)\n%1 = mul(%v, %c)"),
    ("div(%x, %y)", "%c: f32[] = constant(10.0)\n%1 = div(%v, %c)", None),
    ("div(%x, %y)", "%c: f32[] = constant(1.7014118e+38)\n%1 = div(%v, %c)", None),
    ("div(%x, %y)", "%c: f32[] = constant(1e-40)\n%1 = div(%v, %c)", None),
    ("tanh(where(gt(%x, %k), %x, log1p(exp(where(gt(%x, %k), %k, %x)))))",
     "%k: f32[] = constant(20.0)\n%c = gt(%v, %k)\n%w0 = where(%c, %k, %v)\n%e0 = exp(%w0)\n"
     "%l0 = log1p(%e0)\n%w = where(%c, %v, %l0)\n%1 = tanh(%w)",
     "%k: f32[] = constant(20.0)\n%c = gt(%v, %k)\n%w0 = where(%c, %k, %v)\n%e0 = exp(%w0)\n"
     "%k2: f32[] = constant(2.0)\n%a0 = add(%e0, %k2)\n%n0 = mul(%e0, %a0)\n"
     "%d0 = add(%n0, %k2)\n%1 = div(%n0, %d0)"),
    ("tanh(where(gt(%x, %k), %x, log1p(exp(where(gt(%x, %k), %k, %x)))))",
     "%k: f32[] = constant(15.0)\n%c = gt(%v, %k)\n%w0 = where(%c, %k, %v)\n%e0 = exp(%w0)\n"
     "%l0 = log1p(%e0)\n%w = where(%c, %v, %l0)\n%1 = tanh(%w)", None),
    ("tanh(where(gt(%x, %k), %x, %y))",
     "%k: f32[] = constant(20.0)\n%c = gt(%v, %k)\n%w = where(%c, %v, %s)\n%1 = tanh(%w)",
     "%k: f32[] = constant(20.0)\n%c = gt(%v, %k)\n%o: f32[] = constant(1.0)\n%t = tanh(%s)\n"
     "%1 = where(%c, %o, %t)"),
    ("tanh(where(gt(%x, %k), %x, %y))",
     "%k: f32[] = constant(7.0)\n%c = gt(%v, %k)\n%w = where(%c, %v, %s)\n%1 = tanh(%w)", None),
    ("tanh(log1p(exp(%x)))", "%0 = exp(%v)\n%w = log1p(%0)\n%1 = tanh(%w)",
     "%0 = exp(%v)\n%two: f32[] = constant(2.0)\n%a = add(%0, %two)\n%n = mul(%0, %a)\n"
     "%big: f32[] = constant(1.1529215046068470e18)\n%c = gt(%n, %big)\n%o: f32[] = constant(1.0)\n"
     "%d = add(%n, %two)\n%q = div(%n, %d)\n%1 = where(%c, %o, %q)"),
    ("matmul(%x, %y)", "%t = permute(%w1, axes=(1, 0))\n%1 = matmul(%w1, %t)",
     "%r0 = reshape(%w1, shape=(1, 1, 131072))\n%0 = mul(%r0, %r0)\n"
     "%1 = reduce_sum(%0, axes=(2,))"),
    ("matmul(%x, %y)", "%t = reshape(%r, shape=(4, 1))\n%1 = matmul(%r, %t)", None),
    ("contract(%x, %y)", "%1 = contract(%w1, %w1, left=(0, 1), right=(2, 1), out=(2, 0))",
     "%r0 = reshape(%w1, shape=(1, 1, 131072))\n%0 = mul(%r0, %r0)\n"
     "%1 = reduce_sum(%0, axes=(2,))"),
    ("contract(%x, %y)", "%1 = contract(%r, %r, left=(0, 1), right=(2, 1), out=(2, 0))", None),
    ("cast(%x)", "%1 = cast(%v, dtype=f32)", "%1 = %v"),
    ("cast(cast(%x))", "%0 = cast(%v, dtype=f64)\n%1 = cast(%0, dtype=i32)",
     "%1 = cast(%v, dtype=i32)"),
    ("cast(cast(%x))", "%0 = cast(%v, dtype=f64)\n%1 = cast(%0, dtype=f32)", "%1 = %v"),
    ("cast(cast(%x))", "%0 = cast(%v, dtype=f16)\n%1 = cast(%0, dtype=f32)", None),
    ("cast(cast(%x))", "%0 = cast(%v, dtype=i64)\n%1 = cast(%0, dtype=f32)", None),
    ("cast(cast(%x))", "%0 = cast(%h, dtype=f64)\n%1 = cast(%0, dtype=f32)",
     "%1 = cast(%h, dtype=f32)"),
    ("cast(cast(%x))", "%0 = cast(%h, dtype=f64)\n%1 = cast(%0, dtype=u8)", None),
    ("cast(cast(%x))", "%0 = cast(%h, dtype=f32)\n%1 = cast(%0, dtype=f64)", None),
    ("reshape(%x)", "%1 = reshape(%x, shape=(2, 3, 4))", "%1 = %x"),
    ("reshape(reshape(%x))", "%0 = reshape(%x, shape=(24,))\n%1 = reshape(%0, shape=(6, 4))",
     "%1 = reshape(%x, shape=(6, 4))"),
    ("reshape(reshape(%x))", "%0 = reshape(%x, shape=(24,))\n%1 = reshape(%0, shape=(2, 3, 4))",
     "%1 = %x"),
    ("permute(%x)", "%1 = permute(%x, axes=(0, 1, 2))", "%1 = %x"),
    ("permute(%x)", "%1 = permute(%r, axes=(1, 0))", "%1 = reshape(%r, shape=(4, 1))"),
    ("permute(%x)", "%1 = permute(%x, axes=(1, 0, 2))", None),
    ("permute(permute(%x))", "%0 = permute(%x, axes=(2, 0, 1))\n%1 = permute(%0, axes=(2, 1, 0))",
     "%1 = permute(%x, axes=(1, 0, 2))"),
    ("permute(permute(%x))", "%0 = permute(%x, axes=(2, 0, 1))\n%1 = permute(%0, axes=(1, 2, 0))",
     "%1 = %x"),
    ("expand(%x)", "%1 = expand(%v, shape=(4,))", "%1 = %v"),
    ("expand(%x)", "%1 = expand(%v, shape=(1, 4))", "%1 = reshape(%v, shape=(1, 4))"),
    ("expand(%x)", "%1 = expand(%v, shape=(2, 4))", None),
    ("expand(expand(%x))", "%0 = expand(%v, shape=(3, 4))\n%1 = expand(%0, shape=(2, 3, 4))",
     "%1 = expand(%v, shape=(2, 3, 4))"),
    ("expand(reshape(%x))", "%0 = reshape(%v, shape=(1, 4))\n%1 = expand(%0, shape=(3, 4))",
     "%1 = expand(%v, shape=(3, 4))"),
    ("expand(reshape(%x))", "%0 = reshape(%v, shape=(4, 1))\n%1 = expand(%0, shape=(4, 2))", None),
    ("slice(%x)", "%1 = slice(%v, limits=(4,), starts=(0,), steps=(1,))", "%1 = %v"),
    ("slice(%x)", "%1 = slice(%v, limits=(3,), starts=(0,), steps=(1,))", None),
    ("slice(slice(%x))", "%0 = slice(%v, limits=(4,), starts=(1,), steps=(2,))\n"
     "%1 = slice(%0, limits=(2,), starts=(1,), steps=(1,))",
     "%1 = slice(%v, limits=(4,), starts=(3,), steps=(2,))"),
    ("slice(slice(%x))", "%0 = slice(%v, limits=(4,), starts=(1,), steps=(1,))\n"
     "%1 = slice(%0, limits=(2,), starts=(2,), steps=(1,))",
     "%1 = slice(%v, limits=(3,), starts=(3,), steps=(1,))"),
    ("flip(%x)", "%1 = flip(%r, axes=(0,))", "%1 = %r"),
    ("flip(%x)", "%1 = flip(%r, axes=(0, 1))", "%1 = flip(%r, axes=(1,))"),
    ("flip(%x)", "%1 = flip(%r, axes=())", "%1 = %r"),
    ("flip(flip(%x))", "%0 = flip(%x, axes=(0, 1))\n%1 = flip(%0, axes=(1, 2))",
     "%1 = flip(%x, axes=(0, 2))"),
    ("flip(flip(%x))", "%0 = flip(%x, axes=(1,))\n%1 = flip(%0, axes=(1,))", "%1 = %x"),
    ("pad(%x)", "%1 = pad(%v, high=(0,), low=(0,), value=0.0)", "%1 = %v"),
    ("pad(%x)", "%1 = pad(%v, high=(1,), low=(0,), value=0.0)", None),
    ("concatenate(...)", "%1 = concatenate(%v, axis=0)", "%1 = %v"),
    ("concatenate(...)", "%1 = concatenate(%e, %r, axis=0)", "%1 = %r"),
    ("concatenate(...)", "%1 = concatenate(%r, %e, %r, axis=0)",
     "%1 = concatenate(%r, %r, axis=0)"),
    ("concatenate(...)", "%1 = concatenate(%e, %e, axis=0)", None),
    # Parts side by side: %v has 4 elements.
    ("add(pad(%x), %y)", "%0 = pad(%v, high=(4,), low=(0,), value=0)\n%w = tanh(%v)\n"
     "%2 = pad(%w, high=(0,), low=(4,), value=0.0)\n%1 = add(%0, %2)",
     "%w = tanh(%v)\n%1 = concatenate(%v, %w, axis=0)"),
    ("add(pad(%x), %y)", "%w = tanh(%v)\n%0 = pad(%w, high=(1,), low=(7,), value=0.0)\n"
     "%2 = pad(%v, high=(5,), low=(3,), value=0.0)\n%1 = add(%0, %2)",
     "%w = tanh(%v)\n%0 = concatenate(%v, %w, axis=0)\n"
     "%1 = pad(%0, high=(1,), low=(3,), value=0)"),
    ("add(pad(%x), %y)", "%w = tanh(%v)\n%0 = pad(%w, high=(0,), low=(8,), value=0)\n"
     "%2 = pad(%v, high=(8,), low=(0,), value=0)\n%3 = add(%0, %2)\n%u = exp(%v)\n"
     "%4 = pad(%u, high=(4,), low=(4,), value=0)\n%1 = add(%3, %4)",
     "%u = exp(%v)\n%w = tanh(%v)\n%1 = concatenate(%v, %u, %w, axis=0)"),
    ("add(pad(%x), %y)", "%w = tanh(%v)\n%0 = pad(%w, high=(0,), low=(8,), value=0)\n%u = exp(%v)\n"
     "%2 = pad(%u, high=(4,), low=(4,), value=0)\n%3 = add(%0, %2)\n"
     "%4 = pad(%v, high=(8,), low=(0,), value=0)\n%1 = add(%3, %4)",
     "%u = exp(%v)\n%w = tanh(%v)\n%1 = concatenate(%v, %u, %w, axis=0)"),
    ("add(pad(%x), %y)", "%0 = pad(%r, high=(1, 0), low=(0, 0), value=0)\n"
     "%2 = pad(%r, high=(0, 0), low=(1, 0), value=0)\n%1 = add(%0, %2)",
     "%1 = concatenate(%r, %r, axis=0)"),
    *(("add(pad(%x), %y)", f"%0 = pad(%v, {one})\n%2 = pad(%v, {other})\n%1 = add(%0, %2)", None)
      for one, other in (
          ("high=(3,), low=(0,), value=0", "high=(0,), low=(3,), value=0"),  # they overlap
          ("high=(5,), low=(0,), value=0", "high=(0,), low=(5,), value=0"),  # nothing between
          ("high=(4,), low=(0,), value=1", "high=(0,), low=(4,), value=0"),  # not with zeros
      )),
    ("add(pad(%x), %y)", "%0 = pad(%r, high=(1, 0), low=(0, 0), value=0)\n"
     "%2 = pad(%0, high=(0, 4), low=(0, 0), value=0)\n"
     "%3 = pad(%r, high=(0, 0), low=(1, 4), value=0)\n%1 = add(%2, %3)", None),
    ("add(pad(%x), %y)", "%0 = pad(%v, high=(4,), low=(0,), value=0)\n"
     "%2 = concatenate(%v, %v, axis=0)\n%1 = add(%0, %2)", None),
    ("reduce_sum(%x)", "%1 = reduce_sum(%r, axes=(0,))", "%1 = reshape(%r, shape=(4,))"),
    ("reduce_sum(%x)", "%1 = reduce_sum(%r, axes=(0, 1))",
     "%0 = reshape(%r, shape=(4,))\n%1 = reduce_sum(%0, axes=(0,))"),
    ("reduce_sum(%x)", "%1 = reduce_sum(%x, axes=())", "%1 = %x"),
    ("reduce_sum(%x)", "%1 = reduce_sum(%e, axes=(0,))", None),
    ("reduce_prod(%x)", "%1 = reduce_prod(%r, axes=(0,))", "%1 = reshape(%r, shape=(4,))"),
    ("reduce_max(%x)", "%1 = reduce_max(%r, axes=(0,))", "%1 = reshape(%r, shape=(4,))"),
    ("reduce_min(%x)", "%1 = reduce_min(%r, axes=(0,))", "%1 = reshape(%r, shape=(4,))"),
    ("reduce_sum(reduce_sum(%x))", "%0 = reduce_sum(%x, axes=(1,))\n%1 = reduce_sum(%0, axes=(1,))",
     "%1 = reduce_sum(%x, axes=(1, 2))"),
    ("reduce_max(reduce_max(%x))", "%0 = reduce_max(%x, axes=(0,))\n%1 = reduce_max(%0, axes=(1,))",
     "%1 = reduce_max(%x, axes=(0, 2))"),
    ("reduce_min(reduce_min(%x))", "%0 = reduce_min(%x, axes=(2,))\n%1 = reduce_min(%0, axes=(0,))",
     "%1 = reduce_min(%x, axes=(0, 2))"),
    ("reduce_sum(expand(%x))", "%0 = expand(%v, shape=(3, 4))\n%1 = reduce_sum(%0, axes=(0,))",
     "%c: f32[] = constant(3.0)\n%1 = mul(%v, %c)"),
    ("reduce_sum(expand(%x))", "%0 = expand(%r, shape=(5, 4))\n%1 = reduce_sum(%0, axes=(0,))",
     "%0 = reshape(%r, shape=(4,))\n%c: f32[] = constant(5.0)\n%1 = mul(%0, %c)"),
    ("reduce_sum(expand(%x))", "%0 = expand(%v, shape=(3, 4))\n%1 = reduce_sum(%0, axes=(1,))",
     None),
    ("reduce_sum(mul(%x, %y))", "%0 = mul(%x, %v)\n%1 = reduce_sum(%0, axes=(0, 1))",
     "%0 = reduce_sum(%x, axes=(0, 1))\n%1 = mul(%0, %v)"),
    ("reduce_sum(mul(%x, %y))", "%0 = mul(%x, %r)\n%1 = reduce_sum(%0, axes=(0,))",
     "%0 = reduce_sum(%x, axes=(0,))\n%1 = mul(%0, %r)"),
    ("reduce_sum(mul(%x, %y))",
     "%0 = mul(%x, %v)\n%2 = mul(%x, %0)\n%1 = reduce_sum(%2, axes=(0, 1))",
     "%0 = mul(%x, %x)\n%2 = reduce_sum(%0, axes=(0, 1))\n%1 = mul(%2, %v)"),
    ("reduce_sum(mul(%x, %y))", "%0 = mul(%x, %v)\n%1 = reduce_sum(%0, axes=(1, 2))", None),
    ("reduce_sum(mul(%x, %y))", "%0 = mul(%x, %s)\n%1 = reduce_sum(%0, axes=(0, 1))", None),
    # The normal distribution.
    ("add(erf(mul(%x, %c)), 1.0)",
     "%c: f32[] = constant(0.70710677)\n%0 = mul(%v, %c)\n%2 = erf(%0)\n"
     "%d: f32[] = constant(1.0)\n%1 = add(%2, %d)",
     "%0 = phi(%v)\n%c: f32[] = constant(2.0)\n%1 = mul(%0, %c)"),
    ("add(erf(mul(%x, %c)), 1.0)", "%0 = mul(%v, %v)\n%2 = erf(%0)\n%1 = mul(%2, %v)", None),
    # Broadcasts.
    ("elementwise of broadcasts", "%0 = expand(%s, shape=(4,))\n%1 = mul(%v, %0)",
     "%1 = mul(%v, %s)"),
    ("elementwise of broadcasts", "%0 = expand(%v, shape=(3, 4))\n%1 = mul(%x, %0)",
     "%1 = mul(%x, %v)"),
    ("elementwise of broadcasts", "%0 = expand(%v, shape=(3, 4))\n%1 = mul(%v, %0)", None),
    ("elementwise of broadcasts", "%0 = expand(%s, shape=(4,))\n%1 = tanh(%0)",
     "%0 = tanh(%s)\n%1 = expand(%0, shape=(4,))"),
    ("elementwise of broadcasts", "%0 = expand(%s, shape=(4,))\n%1 = where(%b, %v, %0)",
     "%1 = where(%b, %v, %s)"),
    ("view of broadcasts", "%0 = expand(%s, shape=(2, 6))\n%1 = reshape(%0, shape=(3, 4))",
     "%1 = expand(%s, shape=(3, 4))"),
    ("view of broadcasts", "%0 = expand(%s, shape=(2, 6))\n%1 = permute(%0, axes=(1, 0))",
     "%1 = expand(%s, shape=(6, 2))"),
    ("view of broadcasts", "%0 = expand(%s, shape=(6,))\n"
     "%1 = slice(%0, limits=(4,), starts=(1,), steps=(1,))", "%1 = expand(%s, shape=(3,))"),
    ("view of broadcasts", "%0 = expand(%s, shape=(2,))\n"
     "%1 = pad(%0, high=(1,), low=(0,), value=0.0)", None),
]  # fmt: skip
