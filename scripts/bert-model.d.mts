export interface BertShape {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly ffn: number;
  readonly seed: number;
}

/** Bytes of an ONNX file; input `embeddings` [1, seq, width], output `last_hidden_state`. */
export function bertModel(shape: BertShape): Uint8Array;

/** Standard normal embeddings [length, width]. */
export function embeddings(length: number, width: number, seed: number): Float64Array;

/** Standard normal deviates. */
export function gaussian(seed: number): () => number;
