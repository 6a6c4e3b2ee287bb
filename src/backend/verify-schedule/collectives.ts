/** The records of collectives: groups, rows and limbs that go together. */
import { rowsListed } from '../collective-bytes.js';
import type { CollectiveInfo, PlanView } from '../plan-view.js';

export function rising(list: readonly number[]): boolean {
  return list.every((value, i) => i === 0 || value > (list[i - 1] ?? 0));
}

export const natural = (value: number): boolean => Number.isInteger(value) && value >= 0;

/** Reports what is wrong; the collectives whose rows may be used. */
export function soundCollectives(plan: PlanView, report: (fault: string) => void): Set<number> {
  const sound = new Set<number>();
  plan.collectives.forEach((info, id) => {
    const problem = recordProblem(info, plan);
    if (problem === undefined) sound.add(id);
    else report(`collective ${id}: ${problem}`);
  });
  return sound;
}

function recordProblem(info: CollectiveInfo, plan: PlanView): string | undefined {
  const { kind, group, rows, limbs, root } = info;
  const ranks = plan.programs.length;
  const size = group.length;
  if (size === 0 || !rising(group) || !group.every((rank) => natural(rank) && rank < ranks)) {
    return `group [${group.join()}] of ${ranks} ranks`;
  }
  const listed = rowsListed(info);
  if (rows.length !== listed) return `${rows.length} counts of rows, not ${listed}`;
  if (!rows.every(natural) || !rows.some((count) => count > 0)) return `rows [${rows.join()}]`;
  if (kind === 'all_to_all' && group.some((_, s) => rows[s * size + s] !== 0)) {
    return 'a rank sends rows to itself';
  }
  if (!natural(root) || root >= (kind === 'broadcast' ? size : 1)) return `root ${root} of ${size} ranks`;
  const sums = kind === 'reduce_scatter' || kind === 'all_reduce';
  if (limbs.length !== (sums ? rows.length : 0)) {
    return `${limbs.length} lists of limbs, not ${sums ? rows.length : 0}`;
  }
  const primes = plan.parameters.primes.length;
  const wrong = limbs.findIndex(
    (list, k) =>
      list.some((limb) => !natural(limb) || limb >= primes) || (list.length === 0 && rows[k] !== 0),
  );
  if (wrong >= 0) {
    return `limbs [${(limbs[wrong] ?? []).join()}] of segment ${wrong} of ${rows[wrong] ?? 0} rows`;
  }
  if (info.receivedBytes.length !== size) return `${info.receivedBytes.length} predictions for ${size} ranks`;
  return plan.locations[info.node] === undefined
    ? `location ${info.node} of ${plan.locations.length}`
    : undefined;
}
