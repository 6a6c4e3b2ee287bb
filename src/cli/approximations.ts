/** How the nonlinear functions of a model are computed, in words. */
import type { Approximation } from '../ir/module.js';

/** `2 gelu of degree 59, 1 relu of degree 15, 15, 7 in turn, ...`; with the least and the greatest degree. */
export function describeApproximations(all: readonly Approximation[]): string {
  const groups = new Map<string, number[]>();
  for (const one of all) {
    const turns = one.degrees.length > 1 ? `${one.degrees.join(', ')} in turn` : '';
    const [name, degree] = [`${one.function} of degree ${turns}`, one.degrees[0] ?? 0];
    groups.set(name, [...(groups.get(name) ?? []), degree]);
  }
  const texts = [...groups].map(([name, degrees]) => {
    const [least, most] = [Math.min(...degrees), Math.max(...degrees)];
    const range = least === most ? least : `${least} to ${most}`;
    return `${degrees.length} ${name.endsWith(' ') ? `${name}${range}` : name}`;
  });
  return texts.length === 0 ? 'none' : texts.join(', ');
}
