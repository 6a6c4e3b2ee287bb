import { describe, expect, it } from 'vitest';
import { ChainChoice } from '../../src/compile/chain.js';
import type { Module } from '../../src/ir/module.js';
import { planLevels, type LevelReport } from '../../src/passes/plan-levels.js';
import { chainOf, rankChains } from '../../src/passes/plan-levels/chain.js';
import { defined } from '../../src/support/invariant.js';
import { switchingKeyBytes } from '../../src/target/cost.js';
import { defaultLiteral, makeParameters, type Parameters } from '../../src/target/parameters.js';
import { randomModule, unitBounds } from './random-cipher.js';

const secure = makeParameters(defaultLiteral('secure', false));
const tiny = makeParameters(defaultLiteral('tiny', true));

function digitsOf({ keyClasses }: Parameters): number {
  return defined(
    keyClasses.find(({ name }) => name === 'top'),
    'top',
  ).digits.length;
}

function reportOf(module: Module): LevelReport {
  let report: LevelReport | undefined;
  planLevels(module, unitBounds(module), { onReport: (one) => (report = one) });
  return defined(report, 'report');
}

describe('chains', () => {
  it('have the fewest special primes that leave as few digits, within the security bound', () => {
    for (const levels of [4, 8, 13, 18]) {
      const { literal, specials } = chainOf(secure.literal, levels);
      const most = makeParameters(defaultLiteral('secure', false, { usableLevels: levels }));
      const chain = makeParameters(literal);
      expect(chain.securityBits).toBeGreaterThanOrEqual(128);
      expect([literal.usableLevels, digitsOf(chain)]).toEqual([levels, digitsOf(most)]);
      expect(specials).toBeLessThanOrEqual(most.specials);
      const fewer = makeParameters({ ...literal, specials: specials - 1 });
      expect(digitsOf(fewer)).toBeGreaterThan(digitsOf(most));
    }
    expect(() => chainOf(secure.literal, 30)).toThrow(/S103.*30 usable levels/);
  });

  it('are ranked by predicted time, smaller keys first among equals', () => {
    const module = randomModule(tiny, { ops: 10 }, 21);
    const chains = rankChains(module, unitBounds(module), undefined);
    expect(chains.length).toBeGreaterThan(4);
    const best = Math.min(...chains.map(({ seconds }) => seconds));
    const near = chains.filter(({ seconds }) => seconds <= 1.01 * best);
    expect(chains.slice(0, near.length)).toEqual(near);
    expect(near.map(({ keyBytes }) => keyBytes)).toEqual(
      near.map(({ keyBytes }) => keyBytes).sort((a, b) => a - b),
    );
    const rest = chains.slice(near.length).map(({ seconds }) => seconds);
    expect(rest).toEqual([...rest].sort((a, b) => a - b));
    const again = rankChains(module, unitBounds(module), undefined);
    expect(again.map(({ seconds }) => seconds)).toEqual(chains.map(({ seconds }) => seconds));
  });

  it('cost a module no more than the usual one, and bound its plans from below', () => {
    const atSize = makeParameters({ ...tiny.literal, logN: secure.logN });
    let faster = 0;
    for (let seed = 21; seed <= 23; seed++) {
      const module = randomModule(tiny, { ops: 10 }, seed);
      const bounds = unitBounds(module);
      const chain = defined(rankChains(module, bounds, undefined)[0], 'chain');
      const sized = makeParameters({ ...chain.parameters.literal, logN: secure.logN });
      const [usual, taken] = [atSize, sized].map((parameters) => reportOf({ ...module, parameters }));
      expect(chain.seconds).toBeLessThanOrEqual(defined(taken, 'report').seconds * (1 + 1e-9));
      expect(defined(taken, 'report').seconds).toBeLessThanOrEqual(1.02 * defined(usual, 'report').seconds);
      if (defined(taken, 'report').seconds < 0.98 * defined(usual, 'report').seconds) faster++;
    }
    expect(faster).toBeGreaterThan(0);
  });

  it('are short where a module needs few levels and no bootstrap: its keys are small', () => {
    const module = randomModule(tiny, { ops: 3 }, 2);
    const chain = defined(rankChains(module, unitBounds(module), undefined)[0], 'chain');
    expect(chain.parameters.literal.usableLevels).toBeLessThan(tiny.literal.usableLevels);
    const usual = switchingKeyBytes(tiny, tiny.computeTop) + switchingKeyBytes(tiny, tiny.maxLevel);
    expect(chain.keyBytes).toBeLessThan(usual);
  });

  it('are ranked once in a compilation, and give way to smaller keys until there are none', () => {
    const module = randomModule(tiny, { ops: 16 }, 11);
    const choice = new ChainChoice(false, undefined);
    const first = choice.parametersFor(module, unitBounds(module));
    expect(choice.parametersFor(randomModule(tiny, { ops: 3 }, 2), new Map())).toBe(first);
    const chains = rankChains(module, unitBounds(module), undefined);
    const bytesOf = ({ literal }: Parameters): number =>
      defined(
        chains.find(({ parameters }) => parameters.literal.usableLevels === literal.usableLevels),
        'chain',
      ).keyBytes;
    let last = bytesOf(first);
    let steps = 0;
    for (; choice.lighter(); steps++) {
      const next = bytesOf(choice.parametersFor(module, unitBounds(module)));
      expect(next).toBeLessThan(last);
      last = next;
    }
    expect(steps).toBeGreaterThan(0);
    const fixed = new ChainChoice(true, undefined);
    expect(fixed.parametersFor(module, unitBounds(module))).toBe(module.parameters);
    expect([fixed.report, fixed.lighter()]).toEqual([[], false]);
  });
});
