/** Reads a ranges file (`aegis calibrate`). Error D106: not such a file, or damaged. */
import { readFile } from 'node:fs/promises';
import type { Interval, Ranges } from '../passes/ranges.js';
import { AegisError } from '../support/diagnostics.js';

const kinds = ['input', 'variance', 'attention'];

export async function readRanges(path: string): Promise<Ranges> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new AegisError({ code: 'D101', message: `${path} cannot be read: ${reason}` });
  }
  return parseRanges(text, path);
}

export function parseRanges(text: string, source: string): Ranges {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    throw bad(source, `it is not JSON: ${(error as Error).message}`);
  }
  if (!isRecord(root) || root['format'] !== 'aegis-ranges') {
    throw bad(source, 'it is not a file of calibrated ranges');
  }
  if (root['version'] !== 1) {
    throw bad(source, `its version is ${JSON.stringify(root['version'])}, version 1 is read`);
  }
  const { model, sourceHash, nodes, probes } = root;
  if (typeof model !== 'string' || typeof sourceHash !== 'string') throw bad(source, 'it names no model');
  if (!Array.isArray(nodes) || !Array.isArray(probes)) {
    throw bad(source, 'it has no lists "nodes" and "probes"');
  }
  nodes.forEach((node, i) => {
    if (!isNode(node)) throw bad(source, `nodes[${i}] is not a calibrated range`);
  });
  const { values, noPadding, masks } = root;
  if (masks !== undefined && !(isRecord(masks) && Object.values(masks).every(isNumbers))) {
    throw bad(source, '"masks" are not lists of numbers');
  }
  if (noPadding !== undefined && typeof noPadding !== 'boolean') {
    throw bad(source, '"noPadding" is neither true nor false');
  }
  if (values !== undefined && !(Array.isArray(values) && values.every(isValueRange))) {
    throw bad(source, '"values" is not a list of intervals');
  }
  probes.forEach((probe, i) => {
    if (!isRecord(probe) || !Object.values(probe).every(isNumbers)) {
      throw bad(source, `probes[${i}] is not a sample`);
    }
  });
  return root as unknown as Ranges;
}

function isNode(node: unknown): boolean {
  if (!isRecord(node) || typeof node['node'] !== 'string' || !kinds.includes(String(node['kind']))) {
    return false;
  }
  if (!Number.isSafeInteger(node['op']) || !isInterval(node['interval'])) return false;
  const attention = node['attention'];
  if (node['kind'] !== 'attention') return attention === undefined || attention === null;
  if (!isRecord(attention) || !isInterval(attention['scores'])) return false;
  if (attention['keys'] !== undefined && !isInterval(attention['keys'])) return false;
  return [attention['logSumExp'], attention['logSquareSum']].every(
    (list) => Array.isArray(list) && list.length > 0 && list.every(isInterval),
  );
}

function isValueRange(value: unknown): boolean {
  return isRecord(value) && Number.isSafeInteger(value['op']) && isInterval(value);
}

function isInterval(value: unknown): value is Interval {
  if (!isRecord(value) || !isNumbers([value['min'], value['max']])) return false;
  return (value['min'] as number) <= (value['max'] as number);
}

function isNumbers(value: unknown): boolean {
  return Array.isArray(value) && value.every((one) => Number.isFinite(one));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function bad(source: string, what: string): AegisError {
  return new AegisError({
    code: 'D106',
    message: `${source}: ${what}`,
    help: 'make one with aegis calibrate MODEL --samples F -o RANGES.json',
  });
}
