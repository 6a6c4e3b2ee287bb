"""Trains a small Vision Transformer on scikit-learn's 8x8 digits; exports it to ONNX, with samples to check it.

    pip install torch onnx onnxscript onnxruntime scikit-learn
    python train.py             # writes digits_vit.onnx and digits_vit.samples.json beside this file
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 7
TEST_IMAGES = 360
SAMPLES = 64
WIDTH, HEADS, LAYERS, FFN, PATCH, SIDE, CLASSES = 32, 4, 2, 64, 2, 8, 10
TOKENS = (SIDE // PATCH) ** 2 + 1
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 120, 64, 2e-3, 0.05
SCORE_PENALTY = 0.2  # weight of the mean squared attention score
SPREAD_PENALTY = 0.5  # weight of the variance of log(LayerNorm variance)
HERE = Path(__file__).resolve().parent


class Block(nn.Module):
    """Post-norm: each residual sum is normalised at once, so that the hidden state stays bounded with depth."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, FFN)
        self.gelu = nn.GELU()
        self.down = nn.Linear(FFN, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)

    def forward(self, x):
        q, k, v = split_heads(self.qkv(x))
        attended = F.scaled_dot_product_attention(q, k, v)
        x = self.norm1(x + self.out(attended.transpose(1, 2).reshape(x.shape)))
        return self.norm2(x + self.down(self.gelu(self.up(x))))


class DigitsViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.5)
        self.position = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.5)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def split_heads(qkv):
    """[batch, tokens, 3 * width] -> q, k, v, each [batch, heads, tokens, width / heads]"""
    return qkv.unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)


class Probe:
    """Hooks that keep what homomorphic evaluation approximates; outside the model, so the export stays plain."""

    def __init__(self, model):
        self.scores, self.variances, self.gelu_inputs = {}, {}, {}
        self.hooks = []
        for layer, block in enumerate(model.blocks):
            self.hooks += [
                block.qkv.register_forward_hook(self.keep_scores(layer)),
                block.norm1.register_forward_hook(self.keep_variance(f'{layer}.1')),
                block.norm2.register_forward_hook(self.keep_variance(f'{layer}.2')),
                block.gelu.register_forward_hook(self.keep_gelu_input(layer)),
            ]

    def keep_scores(self, layer):
        def hook(_module, _inputs, qkv):
            q, k, _ = split_heads(qkv)
            self.scores[layer] = q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
        return hook

    def keep_variance(self, name):
        def hook(_module, inputs, _output):
            self.variances[name] = inputs[0].var(-1, unbiased=False)
        return hook

    def keep_gelu_input(self, layer):
        def hook(_module, inputs, _output):
            self.gelu_inputs[layer] = inputs[0]
        return hook

    def penalty(self):
        """Encrypted exp and 1/sqrt are polynomials on a fixed range: narrow ranges cost fewer levels."""
        scores = sum(s.square().mean() for s in self.scores.values())
        spread = sum(v.log().var() for v in self.variances.values())
        return SCORE_PENALTY * scores + SPREAD_PENALTY * spread

    def report(self):
        for layer, s in self.scores.items():
            lse = s.logsumexp(-1)
            row_estimate = lse - (s.mean(-1) + s.var(-1, unbiased=False) / 2)
            g = self.gelu_inputs[layer]
            print(f'layer {layer}: scores {span(s)}, row log-sum-exp {span(lse)} (spread {spread(lse):.2f}, '
                  f'less its row estimate {spread(row_estimate):.2f}), gelu input {span(g)}')
        for name, v in self.variances.items():
            print(f'LayerNorm {name}: variance {span(v)}, ratio {(v.max() / v.min()).item():.1f}')

    def remove(self):
        for hook in self.hooks:
            hook.remove()


def span(x):
    return f'[{x.min().item():.3f}, {x.max().item():.3f}]'


def spread(x):
    return (x.max() - x.min()).item()


def load_split():
    """Pixels are 0..16; sixteenths are exact in float32 and in JSON."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32).reshape(-1, 1, SIDE, SIDE)
    labels = digits.target
    return train_test_split(images, labels, test_size=TEST_IMAGES, random_state=SEED, stratify=labels)


def train(images, labels):
    """Fixed number of epochs, last weights: nothing is chosen on held-out images."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in the same order on every run
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    model = DigitsViT()
    probe = Probe(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images)).split(BATCH):
            logits = model(shift(images[batch]))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05) + probe.penalty()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        if (epoch + 1) % 20 == 0:
            print(f'epoch {epoch + 1}: loss {total / len(images):.4f}')
    probe.remove()
    return model.eval()


def shift(images):
    """Moves about half of the images by up to one pixel each way: 1437 images are few."""
    padded = F.pad(images, (1, 1, 1, 1))
    moved = images.clone()
    for dy in range(3):
        for dx in range(3):
            pick = torch.randint(18, (len(images),)) == 0
            moved[pick] = padded[pick, :, dy:dy + SIDE, dx:dx + SIDE]
    return moved


def export(model, path):
    image = torch.zeros(1, 1, SIDE, SIDE)
    torch.onnx.export(model, (image,), str(path), input_names=['image'], output_names=['logits'],
                      opset_version=20, external_data=False, dynamo=True)
    exported = onnx.load(path)
    for node in exported.graph.node:  # stack traces name the exporting machine's folders
        kept = [p for p in node.metadata_props if p.key != 'pkg.torch.onnx.stack_trace']
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.checker.check_model(exported)
    onnx.save(exported, path)


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return np.concatenate([session.run(['logits'], {'image': image[None]})[0] for image in images])


def write_samples(path, model_name, images, labels, logits, accuracy, train_count):
    samples = {
        'model': model_name,
        'meta': {
            'dataset': 'scikit-learn load_digits', 'accuracyTest': round(accuracy, 4),
            'trainSamples': train_count, 'testSamples': len(images),
            'torch': torch.__version__, 'seed': SEED,
        },
        'inputs': {'image': {'dtype': 'float32', 'shape': [1, 1, SIDE, SIDE],
                             'data': images[:SAMPLES].reshape(SAMPLES, -1).tolist()}},
        'logits': logits[:SAMPLES].tolist(),
        'labels': labels[:SAMPLES].tolist(),
    }
    path.write_text(json.dumps(samples, separators=(',', ':')) + '\n')


def main():
    train_images, test_images, train_labels, test_labels = load_split()
    model = train(train_images, train_labels)
    model_path = HERE / 'digits_vit.onnx'
    export(model, model_path)

    logits = run_onnx(model_path, test_images)
    accuracy = float((logits.argmax(1) == test_labels).mean())
    probe = Probe(model)
    with torch.no_grad():
        difference = np.abs(model(torch.from_numpy(test_images)).numpy() - logits).max()
    print(f'test accuracy {accuracy:.4f} of {len(test_labels)} (ONNX Runtime; PyTorch differs by '
          f'{difference:.1e}), logits [{logits.min():.2f}, {logits.max():.2f}]')
    probe.report()
    write_samples(HERE / 'digits_vit.samples.json', model_path.name, test_images, test_labels, logits, accuracy,
                  len(train_images))


if __name__ == '__main__':
    main()
