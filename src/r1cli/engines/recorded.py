"""A cache at fixed addresses, and the pass of a token recorded once as a CUDA graph.

A token's pass is hundreds of kernels of a few microseconds, which take a GPU less time than a program takes to ask for them. Recorded, they
are asked for at once. A recording repeats the same kernels on the same memory, so the cache has room for a fixed number of sequences and
columns; what is not in use is masked. Full columns and few sequences left are answered by another room, of twice the columns or fewer rows,
into which the cache is copied.

Shapes: _B rows, _T columns, _V vocabulary, _H query heads, _K key heads (H = K x R), _D head size.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from r1cli.engines.batch import GrowingBatch, Slot, run_prompts
from r1cli.engines.protocol import Request
from r1cli.layers import gpu
from r1cli.layers.plain import plain_attention

NAME = "r1_decoding"
FEWEST_ROWS, FEWEST_COLUMNS = 8, 256
KEPT = 1 << 30  # bytes of cache that stay between two batches; a recording takes some 20 ms to make
ROWS_STEP, COLUMNS_STEP = 64, 1024  # up to these by powers of two


def decoding_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    newest_1: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: [B, H, 1, D] -> [B, 1, H, D], by our kernel where the newest column is given, else by torch's.

    There the query heads that share a key head stand beside each other as if they were positions: nothing is repeated. Anything but one
    token of each sequence is transformers' own.
    """
    rows, heads, tokens, size = query.shape
    shared = heads // key.shape[1]
    if tokens > 1 or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if newest_1 is not None:
        from r1cli.layers.decoding import attend

        scale = options.get("scaling") or size**-0.5
        out_BHD = attend(query[:, :, 0].contiguous(), key, value, attention_mask[:, 0, 0], newest_1, scale)
        return out_BHD[:, None], None
    query_BKRD = query.reshape(rows, key.shape[1], shared, size)
    mask_B1RT = attention_mask.expand(-1, -1, shared, -1)
    out_BKRD = scaled_dot_product_attention(query_BKRD, key, value, attn_mask=mask_B1RT, scale=options.get("scaling"))
    return out_BKRD.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(NAME, decoding_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


class _Layer(CacheLayerMixin):
    """Keys and values (B, K, T, D) of a layer; what is new goes into one column of all rows."""

    def __init__(self, column_1: Tensor, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self._column_1 = keys, values, column_1
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: there from the beginning."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self._column_1, key_states)
        self.values.index_copy_(2, self._column_1, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.keys.shape[2], 0

    def get_seq_length(self) -> int:
        return int(self.keys.shape[2])

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


class Room:
    """Place for `rows` sequences of at most `columns` tokens: cache, mask and inputs at fixed addresses, and the pass on them.

    column: the next one to be written. like: a cache of the model, for the shapes of its layers.
    """

    def __init__(self, net: Any, like: Any, rows: int, columns: int, pool: Any) -> None:
        first = like.layers[0].keys
        self.rows, self.columns, self.column = rows, columns, 0
        self._net, self._pool = net, pool
        self._graph: Any = None
        self._logits_BV: Tensor | None = None
        self._column_1, self._ids_B1, self._positions_B1 = (first.new_zeros(shape, dtype=torch.long) for shape in (1, (rows, 1), (rows, 1)))
        self._hidden = torch.finfo(first.dtype).min
        self._mask_B11T = first.new_full((rows, 1, 1, columns), self._hidden)
        self.layers = [
            # zeros: a masked column counts 0 times what it holds, which must be a number
            _Layer(self._column_1, *(part.new_zeros(rows, part.shape[1], columns, part.shape[3]) for part in (layer.keys, layer.values)))
            for layer in like.layers
        ]
        self._cache = Cache(layers=self.layers)
        self._more = {"newest_1": self._column_1} if first.is_cuda and gpu.usable() else {}

    @property
    def size(self) -> int:
        """Bytes of the cache."""
        return sum(part.nbytes for layer in self.layers for part in (layer.keys, layer.values))

    def settle(self, lengths: list[int], column: int) -> None:
        """Rows 0, 1, ... hold sequences of so many tokens, which end before `column`."""
        mask_B11T = torch.full(self._mask_B11T.shape, self._hidden, dtype=self._mask_B11T.dtype)
        for row, length in enumerate(lengths):
            mask_B11T[row, ..., column - length : column] = 0.0
        self._mask_B11T.copy_(mask_B11T)
        self._positions_B1.copy_(torch.tensor(lengths + [0] * (self.rows - len(lengths)))[:, None])
        self._column_1.fill_(column)
        self.column = column

    def advance(self, newest: dict[int, int]) -> Tensor:
        """The next token's logits (B, V) of all rows. newest: the last token of each row in use."""
        self._ids_B1.copy_(torch.tensor([[newest.get(row, 0)] for row in range(self.rows)]))
        if self._ids_B1.is_cuda:
            if self._graph is None:
                self._record()
            self._graph.replay()
        else:
            self._logits_BV = self._pass()
        self._column_1.add_(1), self._positions_B1.add_(1)
        self.column += 1
        assert self._logits_BV is not None
        return self._logits_BV

    def _pass(self) -> Tensor:
        """What is recorded. Done twice in a row it changes nothing."""
        self._mask_B11T.index_fill_(3, self._column_1, 0.0)
        out = self._net(
            input_ids=self._ids_B1, attention_mask=self._mask_B11T, position_ids=self._positions_B1, past_key_values=self._cache,
            use_cache=True, logits_to_keep=1, **self._more,
        )  # fmt: skip
        logits_BV: Tensor = out.logits[:, -1]
        return logits_BV

    def _record(self) -> None:
        own, other = torch.cuda.current_stream(), torch.cuda.Stream()
        other.wait_stream(own)
        with torch.cuda.stream(other):
            self._pass()  # what libraries make when they are first asked is not to be recorded
        own.wait_stream(other)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")  # a trainer's thread may go on beside
        with torch.cuda.stream(own), recording:  # one that fails leaves its own stream behind
            self._logits_BV, self._graph = self._pass(), graph


class Rooms:
    """The rooms of an engine, kept from batch to batch. most: tokens (rows x columns) of all of them; the oldest make way."""

    def __init__(self, net: Any, most: int) -> None:
        self._net, self._most = net, most
        self._made: dict[tuple[int, int], Room] = {}
        self._pool: Any = None

    def room(self, like: Any, sequences: int, columns: int, current: Room | None) -> Room:
        """One for so many sequences of so many tokens and one more. It may be `current`, which is in use."""
        size = bucket(sequences, FEWEST_ROWS, ROWS_STEP), bucket(columns + 1, FEWEST_COLUMNS, COLUMNS_STEP)
        found = self._made.pop(size, None)
        if found is None:
            for old in [key for key, room in self._made.items() if room is not current]:
                if sum(rows * columns for rows, columns in self._made) + size[0] * size[1] <= self._most:
                    break
                del self._made[old]
            if self._pool is None and torch.cuda.is_available():
                self._pool = torch.cuda.graph_pool_handle()
            found = Room(self._net, like, *size, self._pool)
        self._made[size] = found
        return found

    def leave(self) -> None:
        """Nothing runs any more. Small caches stay for the next batch with their recordings; the room of large ones is for others."""
        if sum(room.size for room in self._made.values()) > KEPT:
            self.clear()

    def clear(self) -> None:
        """Give all memory back."""
        self._made.clear()
        self._pool = None


def bucket(wanted: int, least: int, step: int) -> int:
    """The size for `wanted`: powers of two from `least` to `step`, and multiples of it."""
    if wanted > step:
        return -(-wanted // step) * step
    return max(least, 1 << (wanted - 1).bit_length())


class RecordedBatch:
    """See `batch.Batch`. Sequences are padded on the left, so that the newest tokens of all stand in one column."""

    def __init__(self, net: Any, device: torch.device, rooms: Rooms) -> None:
        self.slots: list[Slot] = []
        self._net, self._device, self._rooms = net, device, rooms
        self._room: Room | None = None
        self._rows: list[int] = []  # of each slot
        self._chosen: Tensor | None = None  # the same, where not all of the room's

    @torch.inference_mode()
    def advance(self, starting: list[Slot]) -> Tensor:
        parts = []
        if self.slots:
            assert self._room is not None
            scarce = len(self.slots) * 4 <= self._room.rows and self._room.rows > FEWEST_ROWS and not starting
            if self._room.column == self._room.columns or scarce:
                self._move([], None, before=1)
            newest = {row: slot.token_ids[-1] for row, slot in zip(self._rows, self.slots, strict=True)}
            logits_BV = self._room.advance(newest)
            parts.append(logits_BV if self._chosen is None else logits_BV[self._chosen])
        if starting:
            logits_BV, _, cache = run_prompts(self._net, starting, self._device)
            parts.append(logits_BV)
            self._move(starting, cache)
        return torch.cat(parts)

    def _move(self, starting: list[Slot], cache: Any, before: int = 0) -> None:
        """Into the room that fits, with new sequences and their cache. before: tokens at the end of each slot that no pass has seen."""
        lengths = [slot.length - before for slot in self.slots] + [slot.length for slot in starting]
        running, column = len(self.slots), max(lengths)
        old = self._room
        new = self._rooms.room(cache if old is None else old, len(lengths), column, old)
        joined = [None] * len(new.layers) if cache is None else cache.layers
        for place, (layer, joining) in enumerate(zip(new.layers, joined, strict=True)):
            if old is not None and running:
                width = max(lengths[:running])
                for to, source in ((layer.keys, old.layers[place].keys), (layer.values, old.layers[place].values)):
                    to[:running, :, column - width : column] = source[self._rows][:, :, old.column - width : old.column]
            if joining is not None:
                width = joining.keys.shape[2]
                layer.keys[running : len(lengths), :, column - width : column] = joining.keys
                layer.values[running : len(lengths), :, column - width : column] = joining.values
        new.settle(lengths, column)
        self.slots = [*self.slots, *starting]
        self._room = new
        self._take(list(range(len(lengths))))

    def drop(self, ended: set[int]) -> None:
        if ended:
            rows = [row for slot, row in zip(self.slots, self._rows, strict=True) if id(slot) not in ended]
            self.slots = [slot for slot in self.slots if id(slot) not in ended]
            self._take(rows)

    def _take(self, rows: list[int]) -> None:
        assert self._room is not None
        self._rows = rows
        self._chosen = None if len(rows) == self._room.rows else torch.tensor(rows, device=self._device, dtype=torch.long)


def agrees(net: Any, device: torch.device, rooms: Rooms) -> bool:
    """Whether recorded passes say what the model's own say; takes over attention if so. Asked with two sequences of three tokens."""
    if not plain_attention(net):
        return False
    attention = net.config._attn_implementation
    expected = _asked(net, GrowingBatch(net, device))
    try:
        net.set_attn_implementation(NAME)
        found = _asked(net, RecordedBatch(net, device, rooms))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what cannot be recorded, or takes no such attention; Triton's errors are of no kind of Python's
        found, why = [], str(error).partition("\n")[0]
    else:
        why = "other results than the pass itself"
    if found and all(torch.dist(a, b) < 0.05 * torch.linalg.vector_norm(b) for a, b in zip(found, expected, strict=True)):
        return True
    logging.getLogger("r1cli").warning("tokens are computed without CUDA graphs, which is slower: %s", why)
    net.set_attn_implementation(attention)
    rooms.clear()
    return False


def _asked(net: Any, batch: Any) -> list[Tensor]:
    """Logits after two prompts and three given tokens each."""
    spread = max(1, net.get_input_embeddings().num_embeddings // 16)
    slots = [Slot(Request(key, [spread * place for place in range(1, 4 + 2 * key)], 0), torch.Generator()) for key in range(2)]
    found = [batch.advance(slots).float()]
    for token in range(6, 9):
        for slot in slots:
            slot.token_ids.append(spread * token)
        found.append(batch.advance([]).float())
    return found
