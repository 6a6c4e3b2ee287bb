/** Seeded normal deviates for the noise model: same seed, same run. Not for cryptography. */
export class Gaussian {
  private state: number;
  private spare: number | undefined;
  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** Uniform in (0, 1], 32 bits: the mixer of SplitMix32. */
  private uniform(): number {
    this.state = (this.state + 0x9e3779b9) >>> 0;
    let z = this.state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (((z ^ (z >>> 15)) >>> 0) + 1) / 2 ** 32;
  }

  /** Marsaglia's polar method: two deviates from each accepted pair. */
  next(): number {
    if (this.spare !== undefined) {
      const value = this.spare;
      this.spare = undefined;
      return value;
    }
    for (;;) {
      const x = 2 * this.uniform() - 1;
      const y = 2 * this.uniform() - 1;
      const square = x * x + y * y;
      if (square >= 1 || square === 0) continue;
      const radius = Math.sqrt((-2 * Math.log(square)) / square);
      this.spare = y * radius;
      return x * radius;
    }
  }

  added(vector: Float64Array, deviation: number): Float64Array {
    const out = new Float64Array(vector.length);
    for (let s = 0; s < out.length; s++) out[s] = (vector[s] as number) + deviation * this.next();
    return out;
  }
}
