"""Which queries go over which pages of the cache, and in which order what comes of it is merged:
two stages of `step.py`.

A page is gone over by as many queries as the processor has room for at a time (`attention.py`). They may be of one
sequence or of several that have the page in common. Knows nothing of what a model does before and after.
"""

from attention import PAGE, attend_page, attend_page_eight, clear_result, finish, load_i8, merge, scaled, unscaled
from elementwise import quantise
from lanes import load_f16, load_f32, poll, take, team, thread, wide

MOST_QUERIES = 64  # of a key/value head, that several sequences ask together


def attend(stage, work, row, consts, act, cache, bits, s, stop, where, spans, pages, split, tokens):
    """columns: 3 queries, 4 target, 5 heads, 6 key/value heads, 7 head_dim, 8 the layer's place in the cache, 9 where
    in s, after the threads' own scratch, partial results begin, 10 width of the queries and of the target, 11 positions
    that a query sees, 12 place in consts of what soft-caps the scores, or of 0

    A unit is as many queries of one sequence as can be asked together; or all queries of a span of several sequences,
    which begin with the same pages. With split > 0, there is one span, and that many pages are units of their own,
    whose partial results the stage MERGE puts together.
    """
    per_kv = stage[5] // stage[6]
    span = 0
    before = 0  # units of the spans before this one
    grain = 1
    if tokens >= 8 * team():  # all heads of some tokens, whose results are neighbours
        grain = stage[6]
    left = grain  # of the units that this thread has taken
    unit = take(work, row, grain)
    while span < spans.shape[0] and poll(stop) == 0:
        queries = spans[span, 1] * per_kv
        parts = 1
        if split > 0:
            parts = split
        elif spans[span, 4] == 0:
            parts = (queries + side() - 1) // side()
        units = stage[6] * parts
        c = unit - before
        if c >= units:
            before += units
            span += 1
        else:
            h = c % stage[6]
            i0 = 0
            i1 = queries
            if split > 0:
                attend_one_page(
                    stage, consts[stage[12]], act, cache, bits, s, where, pages, split, queries, h, c // stage[6],
                )  # fmt: skip
            else:
                if spans[span, 4] == 0:  # the longest come first, so that the threads end together
                    i0 = (parts - 1 - c // stage[6]) * side()
                    i1 = min(i0 + side(), queries)
                attend_pages(
                    stage, consts[stage[12]], act, cache, bits, s, where, pages, spans[span, 0], i0, i1,
                    spans[span, 2], spans[span, 3], spans[span, 4], h,
                )  # fmt: skip
            unit += 1
            left -= 1
            if left == 0:
                left = grain
                unit = take(work, row, grain)


def side():
    """How many queries are asked together."""
    return 8 if wide() else 4


def attend_one_page(stage, cap, act, cache, bits, s, where, pages, split, queries, h, page):
    """All queries of a key/value head, and one page, which so is read from memory once: partial results."""
    kv_heads, head_dim, window = stage[6], stage[7], stage[11]
    size = 32 + head_dim
    quads = (queries + 3) // 4
    o = stage[8] + (pages[page] * kv_heads + h) * PAGE * head_dim
    begin = max(0, sees(stage, where, 0, 0) - window) // PAGE  # the first page that any of them sees
    for i in range(0, queries, side()):
        left = stage[9] + ((h * quads * 4 + i) * split + page * 4) * size
        right = left + 4 * split * size
        if page >= begin:
            some_queries(stage, cap, act, cache, bits, s, where, 0, i, queries, page * PAGE, o, h, left, right)
        else:
            for j in range(4):
                clear_result(s, left + j * size, head_dim)
            if i + 4 < queries:
                for j in range(4):
                    clear_result(s, right + j * size, head_dim)


def attend_pages(stage, cap, act, cache, bits, s, where, pages, token, i0, i1, first_page, alike, apart, h):
    """The queries from i0 to i1 of a key/value head, counted from those of `token`, and all positions that they see.

    They have the first `alike` pages in common, those at first_page in `pages`; the others of each token are the ones
    that follow in its own list, these lists being `apart`.
    """
    heads, kv_heads, head_dim, width, window = stage[5], stage[6], stage[7], stage[10], stage[11]
    per_kv = heads // kv_heads
    size = 32 + head_dim
    part = thread() * scratch(head_dim) + 8 * PAGE
    run = part + 8 * size
    t0 = i0 // per_kv
    t1 = (i1 - 1) // per_kv + 1
    least = where[2 * (token + t0)] + 1
    most = least
    for t in range(t0 + 1, t1):
        least = min(least, where[2 * (token + t)] + 1)
        most = max(most, where[2 * (token + t)] + 1)
    for i in range(i1 - i0):
        clear_result(s, run + i * size, head_dim)
    for page in range(max(0, least - window) // PAGE, min(alike, (most + PAGE - 1) // PAGE)):
        o = stage[8] + (pages[first_page + page] * kv_heads + h) * PAGE * head_dim
        for i in range(i0, i1, side()):
            some_queries(stage, cap, act, cache, bits, s, where, token, i, i1, page * PAGE, o, h, part, part + 4 * size)
            for j in range(min(side(), i1 - i)):
                merge(s, run + (i - i0 + j) * size, part + j * size, head_dim)
    for t in range(t0, t1):
        n = where[2 * (token + t)] + 1
        for page in range(max(alike, max(0, n - window) // PAGE), (n + PAGE - 1) // PAGE):
            o = stage[8] + (pages[first_page + t * apart + page] * kv_heads + h) * PAGE * head_dim
            end = (t + 1) * per_kv
            for i in range(t * per_kv, end, side()):
                some_queries(
                    stage, cap, act, cache, bits, s, where, token, i, end, page * PAGE, o, h, part, part + 4 * size,
                )  # fmt: skip
                for j in range(min(side(), end - i)):
                    merge(s, run + (i - i0 + j) * size, part + j * size, head_dim)
    for i in range(i0, i1):
        dst = stage[4] + (token + i // per_kv) * width + (h * per_kv + i % per_kv) * head_dim
        finish(s, run + (i - i0) * size, head_dim, act[0], dst)
        if head_dim % 32 == 0:
            quantise(act, dst, head_dim)


def scratch(head_dim):
    """Floats of a thread's own: scores, partial results, and those that become whole."""
    return 8 * PAGE + (8 + MOST_QUERIES) * (32 + head_dim)


def some_queries(stage, cap, act, cache, bits, s, where, token, i, end, p, o, h, left, right):
    """Up to `side()` queries from i on, the page at o, whose first position is p:
    results at left, from the fifth on at right.

    Where there are fewer than four or eight before `end`, the last one is asked in the others' place.
    """
    head_dim, window = stage[7], stage[11]
    at = thread() * scratch(head_dim)
    q = four_places(stage, h, token, i, end - 1)
    n = four_ends(stage, where, token, i, end - 1, p)
    if side() == 8 and end - i > 4:
        r = four_places(stage, h, token, i + 4, end - 1)
        m = four_ends(stage, where, token, i + 4, end - 1, p)
        one_page_eight(act[0], q, r, n, m, window, cap, cache, bits, o, head_dim, s, at, left, right)
    else:
        one_page(act[0], q, n, window, cap, cache, bits, o, head_dim, s, at, left)


def four_places(stage, h, token, i, last):
    """Where the queries i to i + 3 of a key/value head are, in the activations."""
    return (
        place(stage, h, token, i), place(stage, h, token, min(i + 1, last)),
        place(stage, h, token, min(i + 2, last)), place(stage, h, token, min(i + 3, last)),
    )  # fmt: skip


def place(stage, h, token, i):
    per_kv = stage[5] // stage[6]
    return stage[3] + (token + i // per_kv) * stage[10] + (h * per_kv + i % per_kv) * stage[7]


def four_ends(stage, where, token, i, last, p):
    """Before which positions, counted from p, the queries i to i + 3 see all."""
    return (
        sees(stage, where, token, i) - p, sees(stage, where, token, min(i + 1, last)) - p,
        sees(stage, where, token, min(i + 2, last)) - p, sees(stage, where, token, min(i + 3, last)) - p,
    )  # fmt: skip


def sees(stage, where, token, i):
    return where[2 * (token + i // (stage[5] // stage[6]))] + 1


def one_page(f, q, n, window, cap, cache, bits, o, head_dim, s, at, part):
    """`attend_page` with a cache of any precision."""
    k, v, k8, v8, ks, vs = cache
    if bits == 8:
        attend_page(load_i8, scaled, f, q, n, window, cap, k8, v8, ks, vs, o, head_dim, s, at, part)
    elif bits == 32:
        attend_page(load_f32, unscaled, f, q, n, window, cap, ks, vs, ks, vs, o, head_dim, s, at, part)
    else:
        attend_page(load_f16, unscaled, f, q, n, window, cap, k, v, ks, vs, o, head_dim, s, at, part)


def one_page_eight(f, q, r, n, m, window, cap, cache, bits, o, head_dim, s, at, left, right):
    """`attend_page_eight` with a cache of any precision."""
    k, v, k8, v8, ks, vs = cache
    if bits == 8:
        attend_page_eight(load_i8, scaled, f, q, r, n, m, window, cap, k8, v8, ks, vs, o, head_dim, s, at, left, right)
    elif bits == 32:
        attend_page_eight(
            load_f32, unscaled, f, q, r, n, m, window, cap, ks, vs, ks, vs, o, head_dim, s, at, left, right,
        )  # fmt: skip
    else:
        attend_page_eight(load_f16, unscaled, f, q, r, n, m, window, cap, k, v, ks, vs, o, head_dim, s, at, left, right)


def merge_pages(stage, work, row, act, s, tokens, split):
    """Columns as for `attend`."""
    f = act[0]
    heads, kv_heads, head_dim = stage[5], stage[6], stage[7]
    per_kv = heads // kv_heads
    size = 32 + head_dim
    quads = (tokens * per_kv + 3) // 4
    run = thread() * scratch(head_dim) + 8 * PAGE
    if split > 0:
        unit = take(work, row, 1)
        while unit < tokens * heads:
            t = unit // heads
            h = unit % heads // per_kv
            i = t * per_kv + unit % heads % per_kv
            clear_result(s, run, head_dim)
            for page in range(split):
                at = stage[9] + (h * quads * 4 + i // 4 * 4) * split * size + (page * 4 + i % 4) * size
                merge(s, run, at, head_dim)
            dst = stage[4] + t * stage[10] + unit % heads * head_dim
            finish(s, run, head_dim, f, dst)
            if head_dim % 32 == 0:
                quantise(act, dst, head_dim)
            unit = take(work, row, 1)
