/** The part of a profile that is about paths: lists that only grow, so that no request takes from what a level adds. */
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { levelPaths } from './levels.ts';
import type { ThreatLevel } from './levels.ts';
import type { Profile, Reason } from './profile.ts';
import type { RequestedPaths } from './request.ts';

/** Where a workload can write: guest/agent/root.c mounts nothing else so. */
const WRITABLE = ['/dev/shm', '/tmp'] as const;
/** Without these no program of an image runs, or none of a function. */
const NEEDED = [
  '/bin', '/lib', '/lib64', '/usr', '/usr/bin', '/usr/lib', '/usr/lib64', '/opt', '/proc', '/dev', '/function',
];

/** Throws E_LIMIT_INVALID for a path that cannot be named, or not be hidden. */
export function fileSystemOf(
  requested: RequestedPaths = {},
  level: ThreatLevel,
): { readonly fileSystem: Profile['fileSystem']; readonly reasons: readonly Reason[] } {
  const reasons: Reason[] = [{ field: 'fileSystem.writable', because: 'default' }];
  const merged = (name: 'hidden' | 'readOnly'): string[] => {
    const field = `fileSystem.${name}`;
    const wanted = (requested[name] ?? []).map((path) => checkedPath(path, name));
    const taken = levelPaths(level)[name];
    if (wanted.length > 0) reasons.push({ field, because: `requested: ${wanted.join(', ')}` });
    if (taken.length > 0) reasons.push({ field, because: `level ${level}: ${taken.join(', ')}` });
    if (wanted.length + taken.length === 0) reasons.push({ field, because: 'default' });
    const all = [...new Set([...wanted, ...taken])].sort();
    if (all.length > limits.policyPathsMax) {
      refuse(`${all.length} ${name} paths; at most ${limits.policyPathsMax} are allowed.`);
    }
    return all;
  };
  return { fileSystem: { writable: WRITABLE, readOnly: merged('readOnly'), hidden: merged('hidden') }, reasons };
}

function checkedPath(path: string, name: 'hidden' | 'readOnly'): string {
  const canonical = path.startsWith('/') && path.length > 1 && !/\/(\.{0,2})(\/|$)/.test(path);
  const printable = !/[\u0000-\u001f\u007f]/.test(path) && path.isWellFormed();
  if (!canonical || !printable || path.length > limits.policyPathUnits) {
    refuse(`${JSON.stringify(path)} is no absolute path without ., .. and a slash at its end.`);
  }
  if (name === 'hidden' && NEEDED.includes(path)) {
    refuse(`${path} cannot be hidden: no function would run.`);
  }
  if (name === 'readOnly' && !WRITABLE.some((writable) => path === writable || path.startsWith(`${writable}/`))) {
    refuse(`${path} is read-only already: only ${WRITABLE.join(' and ')} can be written.`);
  }
  return path;
}

function refuse(message: string): never {
  throw new MayflyError('E_LIMIT_INVALID', message);
}
