/** Padding masks in the forms that exports write, against ONNX Runtime; and those that are refused. */
import { describe, expect, it } from 'vitest';
import { ClientProgram, importModel } from '../../src/frontend/index.js';
import { runTensor } from '../../src/ir/interpreter/tensor.js';
import {
  Chain,
  encode,
  floats,
  ints,
  kindsOf,
  maxDifference,
  refusalOf,
  runOnnxRuntime,
  weights,
  type ModelSpec,
  type TensorSpec,
} from './onnx-builder.js';

const tokens = 6;
const closed = -3.4028234663852886e38;

/** One attention over float tokens; `mask` turns scores [1, 2, T, T] into masked ones. */
function attention(mask: (c: Chain, scores: string) => string, opset = 17): ModelSpec {
  const c = new Chain();
  const [q, k, v] = [1, 2, 3].map((seed) => {
    const own = c.step('Reshape', [c.step('MatMul', ['x', weights(seed, 8, 8)]), ints(1, tokens, 2, 4)]);
    return c.step('Transpose', [own], { perm: [0, 2, 1, 3] });
  }) as [string, string, string];
  const scores = c.step('MatMul', [q, c.step('Transpose', [k], { perm: [0, 1, 3, 2] })]);
  const mixed = c.step('MatMul', [c.step('Softmax', [mask(c, scores)], { axis: -1 }), v]);
  const flat = c.step('Reshape', [c.step('Transpose', [mixed], { perm: [0, 2, 1, 3] }), ints(1, tokens, 8)]);
  return c.model({ x: [1, tokens, 8], i_mask: [1, tokens] }, flat, opset);
}

const expandedTo = (c: Chain, value: string, ...dims: number[]): string => {
  return c.step('Expand', [c.step('Reshape', [value, ints(1, 1, 1, tokens)]), ints(...dims)]);
};
const asFloat = (c: Chain): string => c.step('Cast', ['i_mask'], { to: 1 });
const asBool = (c: Chain): string => c.step('Cast', ['i_mask'], { to: 9 });
const additive = (c: Chain, low: number): string => {
  const inverted = c.step('Sub', [c.scalar(1), asFloat(c)]);
  return c.step('Mul', [inverted, c.scalar(low)]);
};

const forms: Readonly<Record<string, (c: Chain, scores: string) => string>> = {
  '(1 - m) * -10000, added': (c, s) =>
    c.step('Add', [s, c.step('Reshape', [additive(c, -10000), ints(1, 1, 1, tokens)])]),
  '(1 - m) * the lowest float, over heads and queries': (c, s) =>
    c.step('Add', [expandedTo(c, additive(c, closed), 1, 2, tokens, tokens), s]),
  'Where(m, 0, -inf), added': (c, s) => {
    const chosen = c.step('Where', [asBool(c), c.scalar(0), c.scalar(-Infinity)]);
    return c.step('Add', [s, expandedTo(c, chosen, 1, 1, tokens, tokens)]);
  },
  'Where(m, scores, -inf)': (c, s) =>
    c.step('Where', [expandedTo(c, asBool(c), 1, 1, tokens, tokens), s, c.scalar(-Infinity)]),
  'Where(not m, low, scores)': (c, s) => {
    const dropped = c.step('Equal', ['i_mask', ints(0)]);
    return c.step('Where', [expandedTo(c, dropped, 1, 1, 1, tokens), c.scalar(-1e9), s]);
  },
  '(m == 0) of integers, from one': (c, s) => {
    const dropped = c.step('Cast', [c.step('Sub', [ints(1), 'i_mask'])], { to: 1 });
    const mask = c.step('Mul', [dropped, c.scalar(closed)]);
    return c.step('Add', [s, c.step('Reshape', [mask, ints(1, 1, 1, tokens)])]);
  },
  'ids that are not padding': (c, s) => {
    const kept = c.step('Not', [c.step('Equal', ['i_mask', ints(0)])]);
    return c.step('Where', [expandedTo(c, kept, 1, 1, 1, tokens), s, c.scalar(-1e4)]);
  },
};

const masks = [
  [1, 1, 1, 1, 1, 1],
  [1, 1, 1, 1, 0, 0],
  [0, 0, 1, 1, 1, 1],
  [1, 0, 0, 1, 0, 1],
];

async function check(spec: ModelSpec, own = masks): Promise<readonly string[]> {
  const bytes = encode(spec);
  const { module } = importModel({ bytes });
  const client = new ClientProgram(module.client, module.inputs, module.outputs);
  const x = weights(9, tokens * 8).floats ?? [];
  for (const mask of own) {
    const feed = { x: { dims: [1, tokens, 8], data: x }, i_mask: { dims: [1, tokens], data: mask } };
    const wanted = Object.values(await runOnnxRuntime(bytes, feed))[0] ?? [];
    const [output] = client.decode(runTensor(module, client.encode({ x, i_mask: mask })));
    expect(maxDifference(output?.data ?? [], wanted)).toBeLessThan(2e-5);
  }
  return kindsOf(module);
}

/** A number of its own for each key and head and the mask in one value; biases may follow the kept tokens. */
function biased(c: Chain, follows: boolean): string {
  const constant = floats([1, tokens], [0, 1, 2, 3, 4, 5]);
  const rank = follows
    ? c.step('CumSum', [asFloat(c), { dims: [], ints: [1] }])
    : c.step('Add', [asFloat(c), constant]);
  const wide = c.step('Mul', [
    c.step('Reshape', [rank, ints(1, 1, 1, tokens)]),
    floats([1, 2, 1, 1], [0.25, 0.5]),
  ]);
  const closing = c.step('Reshape', [additive(c, closed), ints(1, 1, 1, tokens)]);
  return c.step('Max', [c.step('Add', [wide, closing]), c.scalar(closed)]);
}

describe('padding masks', () => {
  it.each([false, true])(
    'in one value with position biases, which follow the kept tokens: %s',
    async (follows) => {
      const spec = attention((c, s) => c.step('Add', [s, biased(c, follows)]));
      const holes = masks[3] ?? [];
      await check(spec, follows ? masks.slice(0, 3) : masks);
      if (!follows) return;
      const { module } = importModel({ bytes: encode(spec) });
      const client = new ClientProgram(module.client, module.inputs, module.outputs);
      const x = weights(9, tokens * 8).floats ?? [];
      const { codes, text } = refusalOf(() => client.encode({ x, i_mask: holes }));
      expect(codes).toEqual(['F302']);
      expect(text).toContain('no holes');
    },
  );

  it.each(Object.entries(forms))('%s', async (_, mask) => {
    const spec = attention(mask);
    expect(await check(spec)).toEqual(['rearrange', 'linear', 'linear', 'linear', 'rearrange', 'attention']);
    const module = importModel({ bytes: encode(spec) }).module;
    expect(module.functions[0]?.body.ops.at(-1)?.operands).toHaveLength(4);
  });

  it.each([true, false])('an operand of Attention, boolean %s', async (boolean) => {
    const c = new Chain();
    const [q, k, v] = [1, 2, 3].map((seed) => c.step('MatMul', ['x', weights(seed, 8, 8)])) as [
      string,
      string,
      string,
    ];
    const mask = boolean ? asBool(c) : additive(c, -1e5);
    const out = c.step('Attention', [q, k, v, expandedTo(c, mask, 1, 1, tokens, tokens)], {
      q_num_heads: 2,
      kv_num_heads: 2,
    });
    await check(c.model({ x: [1, tokens, 8], i_mask: [1, tokens] }, out, 23));
  });

  it('one mask of many layers is one input', async () => {
    const spec = attention((c, s) => {
      const first = c.step('Add', [s, expandedTo(c, additive(c, -10000), 1, 2, tokens, tokens)]);
      return c.step('Where', [expandedTo(c, asBool(c), 1, 1, 1, tokens), first, c.scalar(-1e9)]);
    });
    await check(spec);
    expect(importModel({ bytes: encode(spec) }).module.inputs).toHaveLength(2);
  });

  it('masked mean pooling: factors of tokens, and one over their number', async () => {
    const c = new Chain();
    const hidden = c.step('MatMul', ['x', weights(1, 8, 8)]);
    const column = c.step('Unsqueeze', [asFloat(c), ints(2)]);
    const sum = c.step('ReduceSum', [c.step('Mul', [hidden, column]), ints(1)], { keepdims: 0 });
    const count = c.step('Clip', [c.step('ReduceSum', [column, ints(1)], { keepdims: 0 }), c.scalar(1e-9)]);
    const out = c.step('MatMul', [c.step('Div', [sum, count]), weights(2, 8, 3)]);
    expect(await check(c.model({ x: [1, tokens, 8], i_mask: [1, tokens] }, out))).toEqual([
      'rearrange',
      'linear',
      'rearrange',
      'scale_tokens',
      'mean_tokens',
      'rearrange',
      'scale_tokens',
      'linear',
    ]);
  });

  it('client values in any arithmetic', async () => {
    const c = new Chain();
    const hidden = c.step('MatMul', ['x', weights(1, 8, 8)]);
    const column = c.step('Unsqueeze', [asFloat(c), ints(2)]);
    const features = c.step('Mul', [column, weights(4, 8)]);
    const sum = c.step('Sub', [c.step('Add', [hidden, column]), features]);
    await check(c.model({ x: [1, tokens, 8], i_mask: [1, tokens] }, c.step('Mul', [sum, features])));
  });
});

const pairs = (sees: (query: number, key: number) => boolean): TensorSpec => {
  const bools = Array.from({ length: tokens ** 2 }, (_, i) => sees(Math.floor(i / tokens), i % tokens));
  return { dims: [1, 1, tokens, tokens], bools };
};
const triangle = (): TensorSpec => pairs((query, key) => key <= query);
const window = (): TensorSpec => pairs((query, key) => Math.abs(key - query) <= 2);

const causalForms: Readonly<Record<string, (c: Chain, scores: string) => string>> = {
  'And(causal, m) chooses': (c, s) => {
    const kept = c.step('And', [triangle(), expandedTo(c, asBool(c), 1, 1, tokens, tokens)]);
    return c.step('Where', [kept, s, c.scalar(-1e9)]);
  },
  'both added, as one': (c, s) => {
    const causal = c.step('Where', [triangle(), c.scalar(0), c.scalar(-1e9)]);
    const both = c.step('Add', [causal, expandedTo(c, additive(c, -1e9), 1, 1, 1, tokens)]);
    return c.step('Add', [s, both]);
  },
  'one after the other': (c, s) => {
    const causal = c.step('Where', [triangle(), s, c.scalar(-Infinity)]);
    return c.step('Add', [causal, expandedTo(c, additive(c, -1e9), 1, 1, 1, tokens)]);
  },
};

describe('causal attention with padding', () => {
  it.each(Object.entries(causalForms))('%s', async (_, mask) => {
    const spec = attention(mask);
    await check(
      spec,
      masks.filter(([first]) => first === 1),
    );
    const { module } = importModel({ bytes: encode(spec) });
    const [op] = (module.functions[0]?.body.ops ?? []).slice(-1);
    expect(op?.operands).toHaveLength(4);
    expect(op?.attrs.keep).toBeDefined();
  });

  it('F302: a request that begins with padding leaves the first query without a key', () => {
    const [mask] = Object.values(causalForms);
    const { module } = importModel({ bytes: encode(attention(mask!)) });
    const client = new ClientProgram(module.client, module.inputs, module.outputs);
    const x = weights(9, tokens * 8).floats ?? [];
    const refused = refusalOf(() => client.encode({ x, i_mask: [0, 0, 1, 1, 1, 1] }));
    expect(refused.codes).toEqual(['F302']);
    expect(refused.text).toContain('the first token is not padding');
  });

  it('a window: requests in which a query sees no key are refused', async () => {
    const spec = attention((c, s) => {
      const kept = c.step('And', [window(), expandedTo(c, asBool(c), 1, 1, tokens, tokens)]);
      return c.step('Where', [kept, s, c.scalar(-1e9)]);
    });
    await check(spec, [masks[0]!, masks[1]!, [1, 1, 0, 1, 1, 0], masks[3]!]);
    const { module } = importModel({ bytes: encode(spec) });
    const client = new ClientProgram(module.client, module.inputs, module.outputs);
    const x = weights(9, tokens * 8).floats ?? [];
    const refused = refusalOf(() => client.encode({ x, i_mask: [1, 0, 0, 0, 0, 0] }));
    expect(refused.codes).toEqual(['F302']);
    expect(refused.text).toContain('every query sees a key');
  });

  it('a constant bias beside the mask', async () => {
    const bias = weights(8, 2, tokens, tokens);
    await check(
      attention((c, s) =>
        c.step('Add', [s, c.step('Add', [bias, expandedTo(c, additive(c, -1e9), 1, 1, tokens, tokens)])]),
      ),
    );
  });

  it('the operator Attention, is_causal', async () => {
    const c = new Chain();
    const inputs = [1, 2, 3].map((seed) => c.step('MatMul', ['x', weights(seed, 8, 8)]));
    const out = c.step('Attention', [...inputs, expandedTo(c, additive(c, -1e5), 1, 1, tokens, tokens)], {
      q_num_heads: 2,
      kv_num_heads: 2,
      is_causal: 1,
    });
    await check(
      c.model({ x: [1, tokens, 8], i_mask: [1, tokens] }, out, 23),
      masks.filter(([first]) => first === 1),
    );
  });
});

describe('masks made of token ids', () => {
  it.each([0, 1, 5])('with padding %i', async (padding) => {
    const spec = attention((c, s) => {
      const kept = c.step('Not', [c.step('Equal', ['i_mask', ints(padding)])]);
      return c.step('Where', [expandedTo(c, kept, 1, 1, 1, tokens), s, c.scalar(-1e4)]);
    });
    const { module } = importModel({ bytes: encode(spec) });
    const client = new ClientProgram(module.client, module.inputs, module.outputs);
    const x = weights(9, tokens * 8).floats ?? [];
    const data = [7, 3, 4, padding, 9, padding];
    const wanted = await runOnnxRuntime(encode(spec), {
      x: { dims: [1, tokens, 8], data: x },
      i_mask: { dims: [1, tokens], data },
    });
    const [output] = client.decode(runTensor(module, client.encode({ x, i_mask: data })));
    expect(maxDifference(output?.data ?? [], Object.values(wanted)[0] ?? [])).toBeLessThan(2e-5);
  });
});

describe('without padding', () => {
  it('masks cost nothing, and padded requests are refused', async () => {
    const spec = attention((c, s) => c.step('Add', [s, expandedTo(c, additive(c, -1e5), 1, 1, 1, tokens)]));
    const { module } = importModel({ bytes: encode(spec) }, { noPadding: true });
    expect(module.inputs.map(({ name }) => name)).toEqual(['x']);
    const client = new ClientProgram(module.client, module.inputs, module.outputs);
    const x = weights(9, tokens * 8).floats ?? [];
    const [open = [], padded = []] = masks;
    const feed = { x: { dims: [1, tokens, 8], data: x }, i_mask: { dims: [1, tokens], data: open } };
    const wanted = Object.values(await runOnnxRuntime(encode(spec), feed))[0] ?? [];
    const [output] = client.decode(runTensor(module, client.encode({ x, i_mask: open })));
    expect(maxDifference(output?.data ?? [], wanted)).toBeLessThan(2e-5);
    expect(refusalOf(() => client.encode({ x, i_mask: padded })).codes).toEqual(['F302']);
  });
});

describe('masks that are refused', () => {
  const codes = (mask: (c: Chain, scores: string) => string): string[] => {
    return refusalOf(() => importModel({ bytes: encode(attention(mask)) })).codes;
  };
  const rows = (): TensorSpec =>
    floats(
      [tokens, 1],
      Array.from({ length: tokens }, (_, i) => i % 2),
    );

  it('F203: by query', () => {
    const byQuery = (c: Chain): string => {
      return c.step('Mul', [expandedTo(c, additive(c, -10000), 1, 1, tokens, tokens), rows()]);
    };
    expect(codes((c, s) => c.step('Add', [s, byQuery(c)]))).toEqual(['F203']);
  });

  it('F203: more than a mask', () => {
    expect(codes((c, s) => c.step('Add', [s, expandedTo(c, asFloat(c), 1, 1, 1, tokens)]))).toEqual(['F203']);
    expect(
      codes((c, s) =>
        c.step('Add', [s, expandedTo(c, c.step('Mul', [asFloat(c), c.scalar(0)]), 1, 1, 1, tokens)]),
      ),
    ).toEqual(['F203']);
  });

  it('F203: two masks', () => {
    const other = (c: Chain): string => c.step('Sub', [asFloat(c), c.scalar(1)]);
    const shifted = (c: Chain): string => {
      const moved = c.step(
        'Concat',
        [c.step('Slice', [other(c), ints(1), ints(tokens), ints(1)]), floats([1, 1], [0])],
        { axis: 1 },
      );
      return c.step('Mul', [moved, c.scalar(1e6)]);
    };
    const both = (c: Chain, s: string): string => {
      const first = c.step('Add', [s, expandedTo(c, additive(c, -10000), 1, 1, 1, tokens)]);
      return c.step('Add', [first, expandedTo(c, shifted(c), 1, 1, 1, tokens)]);
    };
    expect(codes(both)).toEqual(['F203']);
  });

  it('F203: scores filled with a value that counts', () => {
    const filled = (c: Chain, s: string): string => {
      return c.step('Where', [expandedTo(c, asBool(c), 1, 1, 1, tokens), s, c.scalar(-1)]);
    };
    expect(codes(filled)).toEqual(['F203']);
  });
});
