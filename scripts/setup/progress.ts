/** Progress of set-up for people: a live list on a terminal, one line per event elsewhere. */
import { Listr } from 'listr2';
import type { ShowStep, StepReport } from './setup.ts';

/** Plain lines: logs, CI. */
export function lineProgress(write: (line: string) => void): ShowStep {
  return async (title, work) => {
    let said = '';
    const report = await work((what) => {
      if (what !== said) write(`${title}: ${what}`);
      said = what;
    });
    write(`${title}: ${summary(report)}`);
  };
}

/** A spinner with the latest word beside each step. */
export function liveProgress(): ShowStep {
  return async (title, work) => {
    await new Listr([
      {
        title,
        task: async (_context, task) => {
          const report = await work((what) => {
            task.title = `${title}: ${what}`;
          });
          task.title = `${title}: ${summary(report)}`;
        },
      },
    ]).run();
  };
}

export function summary({ outcome, millis, artefacts }: StepReport): string {
  if (outcome === 'current') return 'ready';
  const sizes = artefacts.map(({ bytes }) => `${(bytes / 1e6).toFixed(1)} MB`);
  return [`done in ${(millis / 1000).toFixed(1)} s`, ...sizes].join(', ');
}
