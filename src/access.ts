/**
 * Who may look at what was kept. `MAYFLY_HOME/roles.json` says which users have a role; without it whoever owns the
 * home has all. It keeps honest people apart: whoever can read the files of the home as its owner needs no permission,
 * which is why snapshots are encrypted, and every look at one is written down.
 */
import { appendFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MayflyError } from './core/errors.ts';
import { makeFolder, readAtMost } from './core/files.ts';
import { isObject } from './core/json.ts';
import { limits } from './core/limits.ts';
import { isoTime } from './core/time.ts';

/** `analyst`: reads snapshots. `custodian`: holds and removes them. */
export type Role = 'analyst' | 'custodian';

export interface AccessOptions {
  readonly home: string;
  /** Of the person: where sudo says who that is, that one. */
  readonly uid: number;
  readonly clock: { wallNanos(): bigint };
}

/** Rejects with E_ACCESS_DENIED. Whatever comes of it is written to forensics/access.jsonl. */
export async function requireRole(options: AccessOptions, role: Role, what: string): Promise<void> {
  const { home, uid, clock } = options;
  const granted = await hasRole(options, role);
  const line = { at: isoTime(clock.wallNanos()), uid, role, what, granted };
  await makeFolder(join(home, 'forensics'), 0o700);
  await appendFile(join(home, 'forensics', 'access.jsonl'), `${JSON.stringify(line)}\n`, { mode: 0o600 });
  if (!granted) throw new MayflyError('E_ACCESS_DENIED', `${what}: user ${uid} is no ${role}`);
}

async function hasRole({ home, uid }: AccessOptions, role: Role): Promise<boolean> {
  const path = join(home, 'roles.json');
  const bytes = await readAtMost(path, limits.rolesBytesMax).catch((thrown: NodeJS.ErrnoException) => {
    return thrown.code === 'ENOENT' ? undefined : Buffer.alloc(0);
  });
  if (bytes === undefined) return uid === (await stat(home)).uid;
  try {
    const roles: unknown = JSON.parse(bytes.toString('utf8'));
    const users = isObject(roles) ? roles[role] : undefined;
    return Array.isArray(users) && users.includes(uid);
  } catch {
    // A file that cannot be read gives nobody anything.
    return false;
  }
}
