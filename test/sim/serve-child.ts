/** The service with played machines, in a process of its own that a test can kill: `serve-child.ts HOME`. */
import { openServe } from '../unit/serve/rig.ts';

const rig = await openServe(process.argv[2] ?? '', { settings: { concurrency: 4 } });
process.stdout.write(`port ${rig.port}\n`);
