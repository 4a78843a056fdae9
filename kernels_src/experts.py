"""A mixture of experts: which of them a token chooses, the rows of all tokens sorted by expert, and their sum.

An expert's rows stand together, so that its weights are read once for all of them, and not at all if there are none.
What a token gets is summed in the order of its own choices, whoever else chose the same.

A token's choices are 4 * SIDE floats: SIDE numbers of experts, SIDE weights, SIDE numbers of rows, and the weight of
the shared expert. The list of experts is 4 floats an entry: first how many follow; then, for each that is chosen, its
number, its first row, and how many rows it has. Knows nothing of matrices and threads.
"""

from elementwise import exp, sigmoid_mul
from lanes import add, div, first, fma, largest, load_f32, max_f32, splat_f32, store_f32, sub, sum_f32

SIDE = 32  # experts that a token can choose


def choose(f, i, experts, used, o, share):
    """The `used` likeliest of the experts by their logits at i, which are overwritten, and their probabilities; to o.

    share : whether the probabilities are those among the chosen ones, or else among all.
    """
    top = splat_f32(-1e30)
    for j in range(0, experts, 16):
        v = first(load_f32(f, i + j), experts - j, splat_f32(-1e30))
        top = largest(v, top)
    top = splat_f32(max_f32(top))
    total = splat_f32(0.0)
    for j in range(0, experts, 16):
        e = exp(sub(first(load_f32(f, i + j), experts - j, splat_f32(-1e30)), top))
        store_f32(f, i + j, e)
        total = add(total, e)
    for j in range(SIDE, 2 * SIDE, 16):
        store_f32(f, o + j, splat_f32(0.0))
    for r in range(used):
        best = 0
        for j in range(experts):
            if f[i + j] > f[i + best]:
                best = j
        f[o + r] = best
        f[o + SIDE + r] = f[i + best]
        f[i + best] = -1.0
    if share:
        total = splat_f32(0.0)
        for j in range(SIDE, 2 * SIDE, 16):
            total = add(total, load_f32(f, o + j))
    whole = splat_f32(sum_f32(total))
    for j in range(SIDE, 2 * SIDE, 16):
        store_f32(f, o + j, div(load_f32(f, o + j), whole))


def weigh_shared(f, i, o):
    """The weight of the shared expert, whose logit is at i, into the choices at o."""
    store_f32(f, o + 3 * SIDE, sigmoid_mul(splat_f32(1.0), splat_f32(f[i])))


def sort_rows(f, o, tokens, experts, used, table):
    """Give every choice of every token a row, by expert and then by token, and write the list of experts."""
    counts = table + 4 * (experts + 1)
    for e in range(experts):
        f[counts + e] = 0
    for t in range(tokens):
        for r in range(used):
            e = int(f[o + t * 4 * SIDE + r])
            f[counts + e] = f[counts + e] + 1
    entries = 0
    at = 0
    for e in range(experts):
        n = int(f[counts + e])
        f[counts + e] = at
        if n > 0:
            entries += 1
            f[table + 4 * entries] = e
            f[table + 4 * entries + 1] = at
            f[table + 4 * entries + 2] = n
        at += n
    f[table] = entries
    for t in range(tokens):
        for r in range(used):
            e = int(f[o + t * 4 * SIDE + r])
            f[o + t * 4 * SIDE + 2 * SIDE + r] = f[counts + e]
            f[counts + e] = f[counts + e] + 1


def copy(f, src, dst, n):
    """f[dst :] = f[src :], n numbers."""
    for j in range(0, n, 16):
        store_f32(f, dst + j, load_f32(f, src + j))


def mix(f, o, used, rows, n, shared, dst):
    """f[dst :] += the sum of a token's rows of n numbers, each times its weight,
    and of the shared one's if shared >= 0."""
    for j in range(0, n, 16):
        a = splat_f32(0.0)
        for r in range(used):
            at = rows + int(f[o + 2 * SIDE + r]) * n
            a = fma(splat_f32(f[o + SIDE + r]), load_f32(f, at + j), a)
        if shared >= 0:
            a = fma(splat_f32(f[o + 3 * SIDE]), load_f32(f, shared + j), a)
        store_f32(f, dst + j, add(load_f32(f, dst + j), a))
