/** xorshift32: the same mutations on every run. */
export function seededRandom(seed: number): (below: number) => number {
  let state = seed | 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/**
 * One to four edits: a bit flipped, a byte replaced, a run removed, a run copied elsewhere, the tail cut off.
 */
export function mutate(original: Uint8Array, random: (below: number) => number): Uint8Array {
  let bytes = Uint8Array.from(original);
  for (let edits = 1 + random(4); edits > 0 && bytes.length > 0; edits--) {
    const at = random(bytes.length);
    const length = 1 + random(16);
    switch (random(5)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
        break;
      case 1:
        bytes[at] = [0, 0xff, 0x7f, 0x80, 0x2d, 0x22, 0x7b][random(7)] ?? 0;
        break;
      case 2:
        bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + length)]);
        break;
      case 3:
        bytes.copyWithin(random(bytes.length), at, at + length);
        break;
      default:
        bytes = bytes.slice(0, at);
    }
  }
  return bytes;
}
