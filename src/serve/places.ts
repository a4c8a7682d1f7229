/** Where the service keeps what: functions, tenants, events, and the lock that lets one service run with a home. */
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { newUuid } from '../core/ids.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';
import { isoTime } from '../core/time.ts';
import type { Clock } from '../core/time.ts';
import { isServiceName } from '../function/manifest.ts';
import { Registry, VERSIONS } from '../function/registry.ts';
import { openVersions } from '../function/version.ts';
import { Tenants } from '../tenant/tenants.ts';
import { Store } from './store/store.ts';

export interface PlacesOptions {
  /** MAYFLY_HOME */
  readonly home: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
}

export interface Places {
  readonly clock: Clock;
  readonly random: Random;
  readonly functions: Registry;
  readonly tenants: Tenants;
  /** Rejects with E_STORE_FAILED. */
  events(bytesMax?: number): Promise<Store>;
  /** Rejects with E_SERVE_RUNNING; resolves to its release. */
  lock(): Promise<() => Promise<void>>;
}

export function openPlaces({ home, clock, random, disk }: PlacesOptions): Places {
  const now = (): string => isoTime(clock.wallNanos());
  const folder = join(home, 'functions');
  const versions = openVersions(join(folder, VERSIONS), () => newUuid(random));
  return {
    clock,
    random,
    functions: new Registry({ folder, versions, now }),
    tenants: new Tenants({ home, random, now, isName: isServiceName }),
    events: (bytesMax = limits.storeBytesDefault) => Store.open({ path: join(home, 'serve', 'events.db'), bytesMax }),
    async lock() {
      await disk.makeFolder(join(home, 'serve'));
      const path = join(home, 'serve', 'lock');
      return await disk.lock(path, 0).catch((cause: unknown) => {
        throw new MayflyError('E_SERVE_RUNNING', `${path} is held by another process`, { cause });
      });
    },
  };
}
