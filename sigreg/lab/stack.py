r"""Train many small networks together: a grid of weights, or of seeds, as one stack.

Networks of one shape have their parameters stacked along a first dimension of length G, and ``torch.func.vmap``
runs all of them on the same minibatch. An elementwise optimiser (Adam) on the stack then is G separate optimisers,
so each network takes exactly the steps it would take alone. A stack gains where one network does not fill the
machine. ``benchmarks/ensembles.py`` measures it, and Chapter 3 shows the times: on one CPU core a stack of six or more
networks of shape ``784-64-32`` beats a plain loop; one of ``784-512-256``, whose matrix products keep a core busy, does
not.
"""

import copy
import math

import torch
from torch.func import functional_call, stack_module_state, vmap


class NetworkStack:
    r"""Networks of one shape as a single callable over their stacked parameters.

    .. math:: \theta = (\theta_1, \dots, \theta_G), \qquad f(\theta, x) = (f_{\theta_1}(x), \dots, f_{\theta_G}(x))

    Args:
        networks: modules of one class and one shape, in training mode. They are copied, not changed.

    Attributes:
        params: name to stacked leaf tensor, (G, ...).

    Raises:
        ValueError: no network, or networks that do not stack.

    Reference:
        The ensembling recipe of ``torch.func``.

    Example:
        >>> nets = NetworkStack([torch.nn.Linear(3, 2) for _ in range(4)])
        >>> nets(torch.zeros(5, 3)).shape
        torch.Size([4, 5, 2])
    """

    def __init__(self, networks):
        networks = list(networks)
        if not networks:
            raise ValueError("networks is empty: give at least one module")
        if len({tuple((k, v.shape) for k, v in net.state_dict().items()) for net in networks}) > 1:
            raise ValueError("networks must have parameters of the same names and shapes to be stacked")
        params, self.buffers = stack_module_state(networks)
        self.params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        self.skeleton = copy.deepcopy(networks[0]).to("meta")
        self.size = len(networks)

    def __call__(self, *inputs):
        """Every network on the same inputs; each output gains a first dimension of length G."""
        return vmap(lambda p, b: functional_call(self.skeleton, (p, b), inputs))(self.params, self.buffers)

    def network(self, g):
        """The g-th network as an ordinary module."""
        state = {name: value.detach()[g] for name, value in {**self.params, **self.buffers}.items()}
        network = copy.deepcopy(self.skeleton).to_empty(device=next(iter(state.values())).device)
        network.load_state_dict(state)
        return network


def train_stack(networks, loss, batches, settings, *, lr=1e-3, lr_scale=None):
    r"""Train every network by Adam on its own loss and one common stream of batches; cosine decay of ``lr`` to zero.

    .. math:: \min_{\theta_1, \dots, \theta_G} \sum_g \ell(f_{\theta_g}, \text{batch}, \text{setting}_g)

    The parameters are disjoint, so each gradient is the one the network would have alone.

    Args:
        networks: modules of one shape, one for each setting.
        loss: function ``loss(forward, params, batch, setting)`` of one network, a scalar tensor. ``forward(*inputs)``
            calls the network, ``params`` are its parameters by name.
        batches: list, or another sized iterable, of what ``loss`` takes as ``batch``.
        settings: tensor (G, ...), row g for network g: a weight of the loss, say.
        lr: first learning rate.
        lr_scale: factors of ``lr`` for parameters whose name starts with a key of this dictionary.

    Returns:
        :class:`NetworkStack`, trained.

    Raises:
        ValueError: the number of settings differs from the number of networks, or a loss became NaN or infinite.

    Reference:
        Kingma and Ba (2015), arXiv 1412.6980; Loshchilov and Hutter (2017), arXiv 1608.03983, for the cosine.

    Example:
        Two lines fitted to one target with different ridge penalties.

        >>> x = torch.linspace(-1, 1, 8)[:, None]
        >>> def ridge(forward, params, batch, penalty):
        ...     return ((forward(batch) - 3 * batch) ** 2).mean() + penalty * params["weight"].square().sum()
        >>> nets = [torch.nn.Linear(1, 1) for _ in range(2)]
        >>> fitted = train_stack(nets, ridge, [x] * 400, torch.tensor([0.0, 1.0]), lr=0.1)
        >>> [round(w, 2) for w in fitted.params["weight"].flatten().tolist()]  # 3 m / (m + penalty), m = 3/7
        [3.0, 0.9]
    """
    together = NetworkStack(networks)
    if len(settings) != together.size:
        raise ValueError(f"settings must have one row per network, {together.size}, got {len(settings)}")
    groups = {}
    for name, value in together.params.items():
        scale = next((s for start, s in (lr_scale or {}).items() if name.startswith(start)), 1.0)
        groups.setdefault(scale, []).append(value)
    optimizer = torch.optim.Adam([{"params": v, "lr": lr * scale} for scale, v in groups.items()])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 0.5 + 0.5 * math.cos(math.pi * i / len(batches)))

    def one(params, buffers, setting, batch):
        return loss(lambda *x: functional_call(together.skeleton, (params, buffers), x), params, batch, setting)

    for batch in batches:
        losses = vmap(one, in_dims=(0, 0, 0, None))(together.params, together.buffers, settings, batch)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        schedule.step()
    if not torch.isfinite(losses).all():
        raise ValueError(f"losses became NaN or infinite ({losses.tolist()}): lower lr={lr}")
    return together
