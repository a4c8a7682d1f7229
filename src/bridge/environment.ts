/**
 * Environment of an executable in a clone: as execve takes it, and never anything of the host's own. A runtime got its
 * own when the template was prepared.
 */
import type { Environment } from '../event/environment.ts';
import type { Workload } from '../event/workload.ts';

const DEFAULTS = [
  'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/tmp', 'TMPDIR=/tmp', 'LANG=C.UTF-8',
];

/** The defaults, and what the caller gave beside or in place of them. */
export function executableEnvironment(given: Environment = new Map()): string[] {
  const kept = DEFAULTS.filter((line) => !given.has(line.slice(0, line.indexOf('='))));
  return [...kept, ...Array.from(given, ([name, value]) => `${name}=${value}`)];
}

/** What the caller gave, and a server's port. */
export function environmentOf({ env = new Map(), server }: Workload): Environment {
  return server === undefined ? env : new Map([...env, ['PORT', String(server.port)]]);
}
