/** `mayfly replay`: a kept run again, and what came out differently. */
import { exitCodes, MayflyError } from '../core/errors.ts';
import { replayRun } from '../replay.ts';
import { policyOf } from './facts.ts';
import type { FactOptions } from './facts.ts';
import { paint, printJson } from './io.ts';
import type { Io } from './io.ts';
import { clean } from './log.ts';
import { acceleratorOf } from './run.ts';

export interface ReplayOptions extends FactOptions {
  readonly profile: string;
  readonly accel: string;
  readonly json?: boolean;
}

/** Exit 0 when it did the same, 1 when not. */
export async function replay(io: Io, run: string, options: ReplayOptions): Promise<number> {
  const { profile, json } = options;
  if (profile !== 'same' && profile !== 'new') {
    throw new MayflyError('E_USAGE', `--profile ${profile}: must be same or new`);
  }
  const policy = await policyOf(io, options);
  const app = await io.openApp();
  const accelerator = acceleratorOf(options.accel);
  const { outcome, differences } = await replayRun(app, run, {
    profile, accelerator, signal: io.signal, ...(policy === undefined ? {} : { policy }),
  }, { progress: (what) => io.err(`mayfly: ${what} …\n`) });
  const { green, yellow } = paint(io.colour && io.outIsTerminal);
  if (json === true) printJson(io, { run, again: outcome.runId, verdict: outcome.verdict.kind, differences });
  else if (differences.length === 0) io.out(`${green('the same')}  run ${outcome.runId} did what ${run} did\n`);
  else {
    const lines = differences.map(({ what, before, now }) => `  ${what}: ${before} → ${now}\n`);
    io.out(`${yellow('different')}  run ${outcome.runId} and ${run}\n${clean(lines.join(''))}`);
  }
  return differences.length === 0 ? exitCodes.ok : exitCodes.functionFailed;
}
