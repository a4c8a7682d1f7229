/**
 * Writes docs/ERRORS.md from src/core/errors.ts, because a list that is kept by hand is soon a list of yesterday.
 *
 *   node scripts/errors-doc.ts          writes the file
 *   node scripts/errors-doc.ts --check  exits with 1 when the file is not what would be written
 *
 * test/unit/core/errors.test.ts compares the two as well, in both directions.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorTable, exitCodes } from '../src/core/errors.ts';
import type { Stage } from '../src/core/errors.ts';

export const errorsDocPath = join(import.meta.dirname, '..', 'docs', 'ERRORS.md');

const introduction = `# Errors

<!-- Written by \`node scripts/errors-doc.ts\` from src/core/errors.ts: change that file, not this one. -->

Every error of Mayfly has a code, and a code is a promise: scripts may branch on it, and it is never reused for another
meaning. What a guest does wrong is not an exception: it becomes the verdict of its run, with one of the same codes, and
is sealed as evidence like any other end.

- **blame** says who has to act: \`caller\` (the event, the function or the command line), \`guest\` (what ran in the
  clone broke the rules), \`host\` (Mayfly or its artefacts) or \`operator\` (the machine or its configuration).
- **retry** \`yes\`: the same call may succeed when simply made again.
- **exit** is the exit code of the command line.

\`mayfly run\` prints code, title, what happened and the remedy on stderr; \`mayfly run --json\` prints one object with
\`error.code\`, \`error.blame\`, \`error.message\` and \`error.remedy\`.`;

const exitMeanings: Readonly<Record<keyof typeof exitCodes, string>> = {
  ok: 'success',
  functionFailed: 'the function ran and failed: it threw, timed out, ran out of memory or returned something unusable',
  usage: 'the command line, event or function could not be used as given',
  environment: 'the machine or its set-up is not able to run clones; `mayfly doctor` says why',
  internal: 'Mayfly itself failed',
  violation: 'the guest broke the rules of the bridge or of its profile',
  interrupted: 'Ctrl-C (143: SIGTERM, 129: SIGHUP); nothing is left behind',
};

const stageTitles: Readonly<Record<Stage, string>> = {
  setup: 'Set-up: before there is an event',
  accept: 'Accept: event and function as they came',
  profile: 'Profile: what the run may do',
  clone: 'Clone: a machine of its own, proved before the event is delivered',
  bridge: 'Bridge: the function at work',
  validate: 'Validate: its output',
  release: 'Release: everything given back',
  seal: 'Seal: the evidence',
};

/** The whole file, with a line feed at its end. */
export function renderErrorsDoc(): string {
  const names = Object.keys(exitCodes) as (keyof typeof exitCodes)[];
  const exits = names.map((name) => [String(exitCodes[name]), exitMeanings[name]]);
  const stages = (Object.keys(stageTitles) as Stage[]).map((stage) => {
    const rows = Object.entries(errorTable)
      .filter(([, meaning]) => meaning.stage === stage)
      .map(([code, { title, blame, retryable, exit, remedy }]) => {
        return [`\`${code}\``, title, blame, retryable ? 'yes' : 'no', String(exit), remedy];
      });
    return `## ${stageTitles[stage]}\n\n${table(['code', 'title', 'blame', 'retry', 'exit', 'remedy'], rows)}`;
  });
  return `${[introduction, `## Exit codes\n\n${table(['exit', 'meaning'], exits)}`, ...stages].join('\n\n')}\n`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const escaped = (cell: string): string => cell.replaceAll('|', '\\|');
  const line = (cells: readonly string[]): string => `| ${cells.map(escaped).join(' | ')} |`;
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n');
}

if (import.meta.main) {
  const wanted = renderErrorsDoc();
  if (process.argv.includes('--check')) {
    const found = await readFile(errorsDocPath, 'utf8').catch(() => '');
    if (found !== wanted) {
      process.stderr.write('docs/ERRORS.md is out of date: run `node scripts/errors-doc.ts`\n');
      process.exitCode = 1;
    }
  } else {
    await writeFile(errorsDocPath, wanted);
  }
}
