/** What /proc says of a process, parsed; who reads it, and when, is the caller's. */

export interface ProcessStat {
  /** One letter, as in `R`, `S` or `Z`. */
  readonly state: string;
  /** Field 22: clock ticks since boot. With the pid it names one process and no later one. */
  readonly startTicks: bigint;
}

/** Content of /proc/PID/stat; undefined when it is none. */
export function parseStat(stat: string): ProcessStat | undefined {
  // The command in parentheses may itself hold spaces and parentheses; what follows the last one is fixed.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state, ticks] = [fields[0], fields[19]];
  return state === undefined || ticks === undefined ? undefined : { state, startTicks: BigInt(ticks) };
}
