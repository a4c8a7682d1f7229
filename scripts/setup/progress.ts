/** Progress of set-up for people: a live list on a terminal, one line per event elsewhere. */
import { Listr } from 'listr2';
import type { StepReport } from './provide.ts';
import type { SetUpDisplay } from './setup.ts';

/** Plain lines: logs, CI. */
export function lineDisplay(write: (line: string) => void): SetUpDisplay {
  return {
    async step(title, work) {
      let said = '';
      const report = await work((what) => {
        if (what !== said) write(`${title}: ${what}`);
        said = what;
      });
      write(`${title}: ${summary(report)}`);
    },
    note: write,
  };
}

/** A spinner with the latest word beside each step. */
export function liveDisplay(write: (line: string) => void): SetUpDisplay {
  return {
    async step(title, work) {
      const tasks = new Listr(
        [
          {
            title,
            task: async (_context, task) => {
              const report = await work((what) => {
                task.title = `${title}: ${what}`;
              });
              task.title = `${title}: ${summary(report)}`;
            },
          },
        ],
        // Ctrl-C is the caller's: listr2 would exit at once and leave everything where it is.
        { registerSignalListeners: false },
      );
      await tasks.run();
    },
    note: write,
  };
}

function summary({ outcome, millis, artefacts }: StepReport): string {
  if (outcome === 'current') return 'ready';
  const sizes = artefacts.map(({ bytes }) => `${(bytes / 1e6).toFixed(1)} MB`);
  return [`done in ${(millis / 1000).toFixed(1)} s`, ...sizes].join(', ');
}
