/**
 * Products run encrypted even when all their operands could be computed on the client, and never after
 * decryption.
 */
export const productOperators: ReadonlySet<string> = new Set(['MatMul', 'Gemm', 'Conv', 'Attention']);
