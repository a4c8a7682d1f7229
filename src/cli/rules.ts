/** `mayfly rules check`, `test` and `diff`: rule files before they are trusted with events. No VM, no set-up. */
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { exitCodes, MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { decideCase } from '../policy.ts';
import { readRuleFiles } from '../rules/files.ts';
import { loadRules, requireRules, showProblem } from '../rules/load.ts';
import { anyFunction, loadTests } from '../rules/suite.ts';
import type { RuleCase } from '../rules/suite.ts';
import { rulesOf, sourceOf } from './facts.ts';
import { paint } from './io.ts';
import type { Io } from './io.ts';
import { judge, profileDifferences } from './judge.ts';

export interface RulesOptions {
  readonly json?: boolean;
}

/** Exit 0 when the rules can be used, warnings or not; 2 when they cannot. */
export async function check(io: Io, path: string, { json }: RulesOptions): Promise<number> {
  const { rules, problems } = loadRules(await readRuleFiles(path));
  if (json === true) {
    io.out(
      `${JSON.stringify({ ok: rules !== undefined, digest: rules?.digest ?? null, problems })}\n`,
    );
  } else {
    const colours = paint(io.colour);
    for (const problem of problems) {
      const label = problem.severity === 'error' ? colours.red('error') : colours.yellow('warning');
      io.err(`${label} ${showProblem(problem)}\n`);
    }
    if (rules !== undefined) io.out(`${rules.rules.length} rules, ${rules.digest}\n`);
  }
  return rules === undefined ? exitCodes.usage : exitCodes.ok;
}

/** Exit 0 when every test passes, 1 otherwise. */
export async function test(io: Io, path: string, { json }: RulesOptions): Promise<number> {
  const files = await readRuleFiles(path);
  const rules = requireRules(loadRules(files));
  const { tests, problems } = loadTests(files, (file, event) => readBounded(resolve(dirname(file), event)));
  const first = problems[0];
  if (first !== undefined) {
    throw new MayflyError('E_RULES_INVALID', showProblem(first), {
      detail: problems.slice(1).map(showProblem).join('\n'),
    });
  }
  const results = tests.map((each) => ({
    name: each.name,
    place: each.place,
    failures: judge(each, decideCase(each, rules)),
  }));
  const failed = results.filter(({ failures }) => failures.length > 0);
  if (json === true) io.out(`${JSON.stringify({ ok: failed.length === 0, tests: results })}\n`);
  else {
    const colours = paint(io.colour);
    for (const { name, place, failures } of results) {
      io.out(`${failures.length === 0 ? colours.green('ok  ') : colours.red('FAIL')} ${name}\n`);
      for (const failure of failures) io.out(`       ${place.file}:${place.line}: ${failure}\n`);
    }
    io.out(`${results.length - failed.length} of ${results.length} tests pass\n`);
  }
  return failed.length === 0 ? exitCodes.ok : exitCodes.functionFailed;
}

export interface DiffOptions extends RulesOptions {
  readonly events: string;
  readonly from?: readonly string[];
}

/** Exit 0 when no event would get another profile, 1 otherwise. */
export async function diff(
  io: Io,
  before: string,
  after: string,
  { events, from, json }: DiffOptions,
): Promise<number> {
  const [old, next] = [await rulesOf(io, before), await rulesOf(io, after)];
  const source = sourceOf(from ?? []);
  const changed: { readonly event: string; readonly differences: readonly string[] }[] = [];
  let [total, invalid] = [0, 0];
  for (const [name, bytes] of eventsOf(events)) {
    total += 1;
    const one: RuleCase = {
      event: bytes,
      source,
      function: anyFunction,
      threat: { score: 0, level: 'low', indicators: [] },
      atMillis: Number(io.wallNanos() / 1_000_000n),
    };
    try {
      const differences = profileDifferences(decideCase(one, old), decideCase(one, next));
      if (differences.length > 0) changed.push({ event: name, differences });
    } catch (thrown) {
      if (!(thrown instanceof MayflyError)) throw thrown;
      invalid += 1;
      io.err(`mayfly: ${name}: ${thrown.message}\n`);
    }
  }
  if (json === true) io.out(`${JSON.stringify({ events: total, invalid, changed })}\n`);
  else {
    for (const { event, differences } of changed)
      io.out(`${event}\n${differences.map((line) => `  ${line}\n`).join('')}`);
    const not = invalid > 0 ? `; ${invalid} are no events` : '';
    io.out(`${changed.length} of ${total} events would get another profile${not}\n`);
  }
  return changed.length === 0 ? exitCodes.ok : exitCodes.functionFailed;
}

/** `.json` files of a folder, or lines of a `.jsonl` file, or one file. */
function* eventsOf(path: string): Generator<readonly [string, Buffer]> {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw new MayflyError('E_USAGE', `--events ${path}: there is no such file or folder`);
  if (found.isDirectory()) {
    for (const name of readdirSync(path)
      .filter((each) => each.endsWith('.json'))
      .sort()
      .slice(0, limits.rulesDiffEventsMax)) {
      const bytes = readBounded(join(path, name));
      if (bytes !== undefined) yield [name, bytes];
    }
  } else if (path.endsWith('.jsonl')) {
    if (found.size > limits.rulesDiffBytesMax)
      throw new MayflyError('E_USAGE', `${path} is larger than ${limits.rulesDiffBytesMax} bytes`);
    const lines = readFileSync(path, 'utf8').split('\n').entries();
    for (const [index, line] of lines) if (line.trim() !== '') yield [`${path}:${index + 1}`, Buffer.from(line)];
  } else yield [path, readBounded(path) ?? Buffer.alloc(0)];
}

/** At most a byte more than an event may have; undefined when it cannot be read. */
function readBounded(path: string): Buffer | undefined {
  try {
    const file = openSync(path, 'r');
    try {
      const buffer = Buffer.alloc(limits.eventBytesMax + 1);
      return buffer.subarray(0, readSync(file, buffer, 0, buffer.length, 0));
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined;
  }
}
