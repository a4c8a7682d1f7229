// Everything that two clones of one template must not have in common, read as the first thing that the handler does.
const early = [Math.random(), Math.random()];
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { openSync, readFileSync, readSync } from 'node:fs';
import { hostname } from 'node:os';

export default async () => {
  const device = Buffer.alloc(16);
  readSync(openSync('/dev/urandom', 'r'), device);
  return {
    unique: {
      mathRandom: String(early),
      uuid: randomUUID(),
      randomBytes: randomBytes(16).toString('hex'),
      webCrypto: Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('hex'),
      urandom: device.toString('hex'),
      machineId: readFileSync('/etc/machine-id', 'utf8').trim(),
      bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      hostname: hostname(),
    },
    clockMillis: Date.now(),
    digest: createHash('sha256').update('same in every clone').digest('hex'),
  };
};
