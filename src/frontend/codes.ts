/**
 * Every code the frontend reports, with what it stands for; docs/onnx-support.md is generated from this
 * table.
 */
export const frontendCodes = {
  F101: 'not an ONNX file, or truncated',
  F102: 'file or tensor larger than the limits',
  F103: 'unsupported element type',
  F104: 'malformed tensor: sizes and data disagree',
  F105: "external data missing, outside the model's folder, or too short",
  F106: 'opset outside the supported range',
  F107: 'malformed graph: missing names, inputs, outputs or attributes',
  F108: 'a node reads a value that nothing defines',
  F109: 'two definitions of one value',
  F110: 'the graph has a cycle',
  F111: 'subgraphs, model functions and sparse tensors',
  F112: 'a dynamic dimension without a value',
  F113: 'a node whose inputs or attributes do not fit its operator',
  F114: 'constant folding would need too much memory or time',
  F115: 'inputs of a run do not fit the model',
  F201: 'operator not supported on encrypted values',
  F202: 'operator supported, but not in this form',
  F203: 'an attention mask that is neither constant nor padding, or closes all keys to a query',
  F205: 'an output that the client would compute from its own inputs alone, or after decryption',
  F206: 'shape or index that depends on encrypted data',
  F301: 'the client part of a plan is damaged or does not fit its ports',
  F302: 'inputs that the plan was not compiled for',
} as const;

export type FrontendCode = keyof typeof frontendCodes;
