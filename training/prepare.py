"""Prepares the labelled streams for training and simulation: nearest neighbours by embedding, answers, and directions of
common words. Deterministic.

    prepare.py EVAL_DIR MODEL_DIR OUT_DIR

EVAL_DIR has the streams and answers.py. MODEL_DIR has all-MiniLM-L6-v2 (model.safetensors, tokenizer.json). Needs numpy and
tokenizers, and about 20 minutes on one core.
"""
import collections
import json
import pathlib
import re
import struct
import sys

import numpy as np
from tokenizers import Tokenizer

STREAMS = ("qqp_dev", "sql_dev", "syn_dev", "doc_dev", "intent_dev", "mix_dev")
HEADS, LAYERS, WINDOW, NEAR, WORDS, DIMENSIONS = 12, 6, 256, 64, 8000, 24


def load(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, about in json.loads(raw[8:8 + size]).items():
        if name != "__metadata__" and about["dtype"] == "F32":
            start, end = about["data_offsets"]
            data = np.frombuffer(raw[8 + size + start:8 + size + end], np.float32)
            tensors[name.removeprefix("bert.")] = data.reshape(about["shape"])
    return tensors


class Model:
    def __init__(self, folder):
        self.w = load(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(WINDOW)

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def forward(self, ids):
        """Embeds texts of equal length, which need no attention mask."""
        n, t = ids.shape
        e = "embeddings."
        x = self.w[e + "word_embeddings.weight"][ids] + self.w[e + "position_embeddings.weight"][:t]
        x = self.norm(x + self.w[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
        for layer in range(LAYERS):
            p = f"encoder.layer.{layer}."
            q, k, v = (self.linear(x, p + "attention.self." + part).reshape(n, t, HEADS, -1).transpose(0, 2, 1, 3)
                       for part in ("query", "key", "value"))
            scores = q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(q.shape[-1]))
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(n, t, -1)
            x = self.norm(x + self.linear(mixed, p + "attention.output.dense"), p + "attention.output.LayerNorm")
            wide = gelu(self.linear(x, p + "intermediate.dense"))
            x = self.norm(x + self.linear(wide, p + "output.dense"), p + "output.LayerNorm")
        pooled = x.mean(1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def embed(self, texts):
        ids = [e.ids for e in self.tokenizer.encode_batch(texts)]
        by_length = collections.defaultdict(list)
        for i, tokens in enumerate(ids):
            by_length[len(tokens)].append(i)
        out = np.zeros((len(texts), self.w["embeddings.word_embeddings.weight"].shape[1]), np.float32)
        for length, rows in sorted(by_length.items()):
            step = max(1, 2048 // length)
            for start in range(0, len(rows), step):
                some = rows[start:start + step]
                out[some] = self.forward(np.array([ids[i] for i in some]))
        return out


def gelu(x):
    z = x / np.float32(np.sqrt(2))
    t = 1 / (1 + 0.3275911 * np.abs(z))
    poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return (0.5 * x * (1 + np.sign(z) * (1 - poly * np.exp(-z * z)))).astype(np.float32)


def neighbours(rows, embeddings):
    """Returns the NEAR nearest earlier rows within the scope, and their cosines. Missing ones have index -1."""
    n, scopes = len(rows), {}
    scope = np.array([scopes.setdefault((r.get("system", ""), tuple(r.get("turns", []))), len(scopes)) for r in rows])
    index, cosine = np.full((n, NEAR), -1, np.int32), np.zeros((n, NEAR), np.float32)
    for start in range(0, n, 512):
        end = min(n, start + 512)
        s = embeddings[start:end] @ embeddings[:end].T
        s[np.arange(start, end)[:, None] <= np.arange(end)[None, :]] = -2
        s[scope[start:end, None] != scope[None, :end]] = -2
        k = min(NEAR, end)
        best = np.argsort(-s, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(s, best, 1)
        index[start:end, :k] = np.where(values > -1.5, best, -1)
        cosine[start:end, :k] = values
    return index, cosine


def words(model, pairs):
    """Returns the most common words and their directions, from the model's input embeddings."""
    counts = collections.Counter()
    for row in pairs:
        for text in (row["a"], row["b"]):
            counts.update(re.findall(r"[a-z]{2,}", text.lower()))
    known = [word for word, n in counts.most_common(WORDS) if n >= 4]
    table = model.w["embeddings.word_embeddings.weight"]
    vectors = np.stack([table[e.ids[1:-1]].mean(0) for e in model.tokenizer.encode_batch(known)])
    vectors = vectors - vectors.mean(0)
    reduced = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:DIMENSIONS].T
    return known, reduced / (np.linalg.norm(reduced, axis=1, keepdims=True) + 1e-9)


def main():
    data, folder, out = (pathlib.Path(arg) for arg in sys.argv[1:])
    sys.path.insert(0, str(data))
    import answers
    model = Model(folder)
    read = lambda name: [json.loads(line) for line in open(data / f"{name}.jsonl", encoding="utf-8") if line.strip()]
    for name in STREAMS:
        rows = read(name)
        index, cosine = neighbours(rows, model.embed([row["text"] for row in rows]))
        index.tofile(out / f"{name}.nn.i32")
        cosine.tofile(out / f"{name}.nn.f32")
        with open(out / f"{name}.ans.jsonl", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(answers.answer(r["id"], r["class"], r["text"])) + "\n" for r in rows)
        print(name, len(rows), flush=True)
    known, vectors = words(model, read("qqp_train_pairs"))
    (out / "words.txt").write_text("\n".join(known))
    vectors.astype(np.float32).tofile(out / "words.f32")


if __name__ == "__main__":
    main()
