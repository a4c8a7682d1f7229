/**
 * Processes as the system sees them. A pid alone names nobody: it may be a zombie, or someone else's by now, so every
 * question and every kill goes with the start time.
 */
import { readFile } from 'node:fs/promises';
import { parseStat } from '../core/procfs.ts';

export interface Processes {
  /** Undefined when there is no such process, or only its zombie. */
  startTicks(pid: number): Promise<bigint | undefined>;
  /** SIGKILL. No error when it is gone already. */
  kill(pid: number): void;
  /** Of the running host, /proc/sys/kernel/random/boot_id. */
  bootId(): Promise<string>;
}

export function createProcesses(): Processes {
  return {
    async startTicks(pid) {
      let stat: string;
      try {
        stat = await readFile(`/proc/${pid}/stat`, 'latin1');
      } catch {
        return undefined;
      }
      const found = parseStat(stat);
      return found === undefined || found.state === 'Z' || found.state === 'X' ? undefined : found.startTicks;
    },
    kill(pid) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone already, or not ours to kill: whoever asked looks again afterwards.
      }
    },
    async bootId() {
      return (await readFile('/proc/sys/kernel/random/boot_id', 'latin1')).trim();
    },
  };
}

/** The very process is alive: same pid, same start time. */
export async function isAlive(processes: Processes, pid: number, startTicks: bigint): Promise<boolean> {
  return (await processes.startTicks(pid)) === startTicks;
}
