/**
 * A rank's program as the event simulation sees it: stretches of computation, starts and waits of
 * collectives, and the loops that hold some. Calls and loops without communication are counted once.
 */
import { defined } from '../../support/invariant.js';
import { kernelSeconds } from '../../target/kernel-cost.js';
import type { DeviceProfile } from '../../target/profile.js';
import type { Command, PlanFunction, PlanView } from '../plan-view.js';
import { rowWordsOf, workOf, type KernelOp, type RowWords } from './work.js';

/** Commands without communication, one after another, of one function. */
export interface Stretch {
  readonly commands: readonly Command[];
  readonly rowWords: RowWords;
}

export type Item =
  | { readonly kind: 'compute'; readonly seconds: number; readonly stretch: Stretch }
  | { readonly kind: 'start'; readonly collective: number }
  | { readonly kind: 'wait'; readonly collective: number }
  | { readonly kind: 'loop'; readonly trips: number; readonly body: readonly Item[]; readonly node: number };

export interface OpcodeSeconds {
  readonly seconds: number;
  readonly launches: number;
}

/** Of the kernels of one execution. */
export interface Totals {
  seconds: number;
  readonly nodes: Map<number, number>;
  readonly opcodes: Map<KernelOp, OpcodeSeconds>;
}

export interface CostOptions {
  readonly profile: DeviceProfile;
  /** 2: kernels take half the time. */
  readonly kernelSpeed: number;
}

interface Activation {
  readonly func: PlanFunction;
  readonly rowWords: RowWords;
}

export class ProgramCosts {
  private readonly functions: readonly PlanFunction[];
  private readonly communicating: boolean[] = [];
  private readonly totals = new Map<string, Totals>();
  private readonly items = new Map<string, readonly Item[]>();

  constructor(
    private readonly plan: PlanView,
    rank: number,
    private readonly options: CostOptions,
  ) {
    this.functions = defined(plan.programs[rank], 'program').functions;
    for (const func of this.functions) this.communicating.push(this.anyCommunicates(func.commands));
  }

  entryItems(): readonly Item[] {
    return this.itemsOf(this.functions.length - 1, []);
  }

  entryTotals(): Totals {
    return this.totalsOf(this.functions.length - 1, []);
  }

  communicates(command: Command): boolean {
    switch (command.op) {
      case 'collective':
      case 'wait':
        return true;
      case 'loop':
        return this.anyCommunicates(command.body);
      case 'call':
        return defined(this.communicating[command.callee], 'callee');
      default:
        return false;
    }
  }

  private anyCommunicates(commands: readonly Command[]): boolean {
    return commands.some((command) => this.communicates(command));
  }

  /** One execution; a loop with all its iterations. Communication counts nothing. */
  seconds(command: Command, rowWords: RowWords): number {
    switch (command.op) {
      case 'collective':
      case 'wait':
        return 0;
      case 'loop':
        return command.tripCount * this.sum(command.body, rowWords);
      case 'call':
        return this.totalsOf(command.callee, argumentWords(command, rowWords)).seconds;
      default:
        return this.launchSeconds(command, command.op, rowWords);
    }
  }

  callee(command: Command, rowWords: RowWords): { func: PlanFunction; rowWords: RowWords } {
    return this.activate(command.callee, argumentWords(command, rowWords));
  }

  private sum(commands: readonly Command[], rowWords: RowWords): number {
    return commands.reduce((sum, command) => sum + this.seconds(command, rowWords), 0);
  }

  private launchSeconds(command: Command, op: KernelOp, rowWords: RowWords): number {
    const { profile, kernelSpeed } = this.options;
    const { logN } = this.plan.parameters;
    const work = workOf(command, op, logN, rowWords);
    return kernelSeconds(profile, work, logN, { ranks: this.plan.programs.length }) / kernelSpeed;
  }

  private activate(index: number, given: RowWords): Activation {
    const func = defined(this.functions[index], 'function');
    return { func, rowWords: rowWordsOf(this.plan, func, given) };
  }

  private totalsOf(index: number, given: RowWords): Totals {
    const key = `${index}:${given.join()}`;
    const known = this.totals.get(key);
    if (known !== undefined) return known;
    const { func, rowWords } = this.activate(index, given);
    const totals: Totals = { seconds: 0, nodes: new Map(), opcodes: new Map() };
    this.addTotals(totals, func.commands, rowWords, 1);
    this.totals.set(key, totals);
    return totals;
  }

  private addTotals(totals: Totals, commands: readonly Command[], rowWords: RowWords, times: number): void {
    for (const command of commands) {
      switch (command.op) {
        case 'collective':
        case 'wait':
          break;
        case 'loop':
          this.addTotals(totals, command.body, rowWords, times * command.tripCount);
          break;
        case 'call':
          addTimes(totals, this.totalsOf(command.callee, argumentWords(command, rowWords)), times);
          break;
        default: {
          const seconds = this.launchSeconds(command, command.op, rowWords);
          addTimes(
            totals,
            {
              seconds,
              nodes: new Map([[command.node, seconds]]),
              opcodes: new Map([[command.op, { seconds, launches: 1 }]]),
            },
            times,
          );
        }
      }
    }
  }

  private itemsOf(index: number, given: RowWords): readonly Item[] {
    const key = `${index}:${given.join()}`;
    const known = this.items.get(key);
    if (known !== undefined) return known;
    const { func, rowWords } = this.activate(index, given);
    const items = this.blockItems(func.commands, rowWords);
    this.items.set(key, items);
    return items;
  }

  private blockItems(commands: readonly Command[], rowWords: RowWords): readonly Item[] {
    const items: Item[] = [];
    let local: Command[] = [];
    const flush = () => {
      if (local.length === 0) return;
      items.push({
        kind: 'compute',
        seconds: this.sum(local, rowWords),
        stretch: { commands: local, rowWords },
      });
      local = [];
    };
    for (const command of commands) {
      if (!this.communicates(command)) {
        local.push(command);
        continue;
      }
      flush();
      items.push(...this.communicationItems(command, rowWords));
    }
    flush();
    return items;
  }

  private communicationItems(command: Command, rowWords: RowWords): readonly Item[] {
    const { collective, node } = command;
    const { background } = this.options.profile.link;
    const start: Item = { kind: 'start', collective };
    const wait: Item = { kind: 'wait', collective };
    if (command.op === 'wait') return background ? [wait] : [start, wait];
    if (command.op === 'loop') {
      return [
        { kind: 'loop', trips: command.tripCount, body: this.blockItems(command.body, rowWords), node },
      ];
    }
    if (command.op === 'call') return this.itemsOf(command.callee, argumentWords(command, rowWords));
    if (command.blocking) return [start, wait];
    return background ? [start] : [];
  }
}

function argumentWords(command: Command, rowWords: RowWords): RowWords {
  return command.plainBindings.map((slot) => defined(rowWords[slot], 'bound plaintext'));
}

function addTimes(to: Totals, from: Totals, times: number): void {
  to.seconds += times * from.seconds;
  for (const [node, seconds] of from.nodes) {
    to.nodes.set(node, (to.nodes.get(node) ?? 0) + times * seconds);
  }
  for (const [op, { seconds, launches }] of from.opcodes) {
    const before = to.opcodes.get(op) ?? { seconds: 0, launches: 0 };
    to.opcodes.set(op, {
      seconds: before.seconds + times * seconds,
      launches: before.launches + times * launches,
    });
  }
}
