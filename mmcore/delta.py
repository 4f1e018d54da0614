"""The gated delta rule (Gated Delta Networks, arXiv 2412.06464): attention whose past is one matrix, the state.

    S <- exp(g) S;  S <- S + k (beta (v - S^T k))^T;  out = S^T q / sqrt(K)

At each position the state fades by `g`, forgets by `beta` what it had under the key, and writes the value there. Told
so it is `recurrent`, a position at a time. `chunked` gives the same by matrix products over chunks of positions: within
one, all writes follow from a triangular system (arXiv 2406.06484), and only the state goes from chunk to chunk.

Shapes: `N` chunks or sequences, `H` heads, `C` positions of a chunk, `K` head width, of values too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def recurrent(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The rule as it stands: the reference that `chunked` is held to.

    Args:
        q: queries (N, H, C, K).
        k: keys (N, H, C, K), each of length 1 or 0.
        v: values (N, H, C, K).
        g: logarithms of how much of the state stays (N, H, C), <= 0.
        beta: share of what the state had under a key that is replaced (N, H, C), in [0, 1].
        state: (N, H, K, K), keys by values.
    Returns:
        (N, H, C, K) and the state after the last position.
    """
    outs: list[Tensor] = []
    for i in range(q.shape[2]):
        state = state * g[:, :, i, None, None].exp()
        key = k[:, :, i, :, None]  # (N, H, K, 1)
        held = (state * key).sum(-2)
        state = state + key * (beta[:, :, i, None] * (v[:, :, i] - held))[..., None, :]
        outs.append((state * q[:, :, i, :, None]).sum(-2))
    return torch.stack(outs, 2) * q.shape[-1] ** -0.5, state


def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, start: Tensor, parents: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The same over chunks that form trees: each begins from the state that its parent ends with.

    Chunks of one level run at once. Arguments are as in `recurrent`, float32.

    Args:
        q: (N, H, C, K), chunks in the order of their levels.
        k: (N, H, C, K).
        v: (N, H, C, K).
        g: (N, H, C); 0 where a chunk is not full.
        beta: (N, H, C); 0 there too.
        start: (M, H, K, K) states that the chunks of the first level may begin from.
        parents: for each level, (n,) what its chunks begin from: places in `start`, then in the level before.
    Returns:
        (N, H, C, K), and for each level the states (n, H, K, K) that its chunks end with.
    """
    c, width = q.shape[2:]
    fade = g.cumsum(-1)  # (N, H, C)
    later = torch.ones(c, c, dtype=torch.bool, device=q.device).triu(1)
    between = (fade[..., :, None] - fade[..., None, :]).masked_fill(later, -torch.inf).exp()  # (N, H, C, C)
    q = q * width**-0.5
    scores = (q @ k.mT) * between
    written = beta[..., None] * torch.cat((v, k * fade.exp()[..., None]), -1)
    system = beta[..., None] * (k @ k.mT) * between
    new, old = torch.linalg.solve_triangular(system, written, upper=False, unitriangular=True).split(width, -1)
    q, k = q * fade.exp()[..., None], k * (fade[..., -1:] - fade).exp()[..., None]
    left = fade[..., -1, None, None].exp()  # (N, H, 1, 1)
    outs, ends, states, at = [], [], start, 0
    for parent in parents:
        here = slice(at, at + len(parent))
        state = states[parent]
        value = new[here] - old[here] @ state
        outs.append(q[here] @ state + scores[here] @ value)
        states = state * left[here] + k[here].mT @ value
        ends.append(states)
        at = here.stop
    return torch.cat(outs) if outs else q, ends
