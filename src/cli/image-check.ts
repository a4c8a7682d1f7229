/** `mayfly image check`: the conformance suite's report. What it does is behind App.check(). */
import { exitCodes } from '../core/errors.ts';
import type { Check } from '../image/conform.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { acceleratorOf } from './run.ts';

export interface CheckOptions {
  readonly json?: boolean;
  readonly allowUnsigned?: boolean;
  readonly accel: string;
}

/** Exit 3 when the image cannot serve events on this machine. */
export async function check(io: Io, image: string, options: CheckOptions): Promise<number> {
  const app = await io.openApp();
  const began = io.now();
  const say = (step: string): void => io.err(paint(io.colour).dim(`mayfly: ${step} …\n`));
  const accelerator = acceleratorOf(options.accel);
  const order = { image, allowUnsigned: options.allowUnsigned === true, accelerator, signal: io.signal, say };
  const checked = await app.check(order);
  const { name, digest, ok, checks } = checked;
  const millis = Math.round(io.now() - began);
  if (options.json === true) printJson(io, { ...checked, millis });
  else {
    const failed = checks.filter(({ result }) => result === 'fail').length;
    const verdict = ok ? 'serves events here' : `does not conform: ${failed} of ${checks.length} checks failed`;
    io.out(`${format(io, checks)}\n${name} ${digest.slice(7, 19)} ${verdict} (${(millis / 1000).toFixed(1)} s)\n`);
  }
  return ok ? exitCodes.ok : exitCodes.environment;
}

function format(io: Io, checks: readonly Check[]): string {
  const colours = paint(io.colour && io.outIsTerminal);
  const mark = { pass: colours.green('pass'), fail: colours.red('FAIL'), skip: colours.dim('skip') };
  const width = Math.max(...checks.map(({ name }) => name.length));
  return checks
    .flatMap(({ name, result, detail, remedy }) => [
      `${mark[result]}  ${name.padEnd(width)}  ${detail}`,
      ...(remedy === '' ? [] : [`      ${' '.repeat(width)}  ${colours.cyan('→')} ${remedy}`]),
    ])
    .map((line) => `${line}\n`)
    .join('');
}
