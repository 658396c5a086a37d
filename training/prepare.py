"""Prepares the labelled streams for training and simulation: made-up answers, and directions of common words.
Deterministic.

    prepare.py EVAL_DIR MODEL_DIR OUT_DIR

EVAL_DIR has the streams and answers.py. MODEL_DIR has all-MiniLM-L6-v2 (model.safetensors, vocab.txt). Needs numpy and
tokenizers.
"""
import collections
import json
import pathlib
import re
import struct
import sys

import numpy as np
from tokenizers import BertWordPieceTokenizer

STREAMS = ("qqp_dev", "sql_dev", "syn_dev", "doc_dev", "intent_dev", "mix_dev")
WORDS, DIMENSIONS = 8000, 24


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


def words(folder, pairs):
    """Returns the most common words and their directions, from the model's input embeddings."""
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    counts = collections.Counter()
    for row in pairs:
        for text in (row["a"], row["b"]):
            counts.update(re.findall(r"[a-z]{2,}", text.lower()))
    known = [word for word, n in counts.most_common(WORDS) if n >= 4]
    table = load(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    vectors = np.stack([table[e.ids[1:-1]].mean(0) for e in tokenizer.encode_batch(known)])
    vectors = vectors - vectors.mean(0)
    reduced = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:DIMENSIONS].T
    return known, reduced / (np.linalg.norm(reduced, axis=1, keepdims=True) + 1e-9)


def main():
    data, folder, out = (pathlib.Path(arg) for arg in sys.argv[1:])
    sys.path.insert(0, str(data))
    import answers
    read = lambda name: [json.loads(line) for line in open(data / f"{name}.jsonl", encoding="utf-8") if line.strip()]
    for name in STREAMS:
        rows = read(name)
        with open(out / f"{name}.ans.jsonl", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(answers.answer(r["id"], r["class"], r["text"])) + "\n" for r in rows)
        print(name, len(rows), flush=True)
    known, vectors = words(folder, read("qqp_train_pairs"))
    (out / "words.txt").write_text("\n".join(known))
    vectors.astype(np.float32).tofile(out / "words.f32")


if __name__ == "__main__":
    main()
