import { describe, expect, it } from 'vitest';
import { ProblemBuilder, valueOf, type Problem } from '../../src/passes/co-place/solver/graph.js';
import { defaultLimits, solve } from '../../src/passes/co-place/solver/solve.js';
import { random } from './tiny-transformer.js';

interface Shape {
  readonly variables: number;
  readonly values: number;
  /** Share of pairs with a cost, of entries that forbid. */
  readonly density: number;
  readonly forbidden: number;
}

function randomProblem(shape: Shape, seed: number): Problem {
  const next = random(seed);
  const uniform = () => (next() + 1) / 2;
  const cost = () => (uniform() < shape.forbidden ? Infinity : Math.floor(uniform() * 10));
  const builder = new ProblemBuilder();
  for (let v = 0; v < shape.variables; v++) {
    const size = 1 + Math.floor(uniform() * shape.values);
    builder.variable(Float64Array.from({ length: size }, () => Math.floor(uniform() * 6)));
  }
  for (let a = 0; a < shape.variables; a++) {
    for (let b = a + 1; b < shape.variables; b++) if (uniform() < shape.density) builder.pair(a, b, cost);
  }
  return builder.finish();
}

function bruteForce(problem: Problem): number {
  const choice = problem.unary.map(() => 0);
  let best = Infinity;
  const visit = (v: number): void => {
    if (v === choice.length) best = Math.min(best, valueOf(problem, choice));
    else for (let i = 0; i < problem.unary[v]!.length; i++) ((choice[v] = i), visit(v + 1));
  };
  visit(0);
  return best;
}

const shapes: readonly Shape[] = [
  { variables: 6, values: 4, density: 0.5, forbidden: 0 },
  { variables: 7, values: 3, density: 0.8, forbidden: 0.2 },
  { variables: 8, values: 3, density: 0.3, forbidden: 0.3 },
];

describe('the solver of co-place', () => {
  it.each(shapes)('finds the minimum: %o', (shape) => {
    for (let seed = 1; seed <= 60; seed++) {
      const problem = randomProblem(shape, seed);
      const best = bruteForce(problem);
      if (best === Infinity) continue;
      const solution = solve(problem);
      expect(solution.value).toBe(best);
      expect(valueOf(problem, solution.choice)).toBe(best);
      expect(solution.bound).toBe(best);
    }
  });

  it('bounds the minimum where tables do not fit', () => {
    for (let seed = 1; seed <= 40; seed++) {
      const problem = randomProblem({ variables: 8, values: 3, density: 0.7, forbidden: 0 }, seed);
      const best = bruteForce(problem);
      const { value, bound } = solve(problem, { ...defaultLimits, tableEntries: 9, rounds: 1 });
      expect(bound).toBeLessThanOrEqual(best + 1e-9);
      expect(value).toBeGreaterThanOrEqual(best);
    }
  });
});
