/** A manifest for tests, and what is different about it. */
import { digestOf } from '../../../src/core/json.ts';
import type { ImageManifest } from '../../../src/image/manifest.ts';

export function sampleManifest(different: Partial<ImageManifest> = {}): ImageManifest {
  return {
    manifestVersion: 1,
    name: 'node',
    description: 'Node 24: JavaScript handlers and executables',
    classes: ['compute', 'web'],
    variant: 'standard',
    runtime: { argv: ['/usr/bin/node', '/usr/lib/mayfly/shim.mjs'], env: ['HOME=/tmp'] },
    command: null,
    serves: { contentTypes: ['application/json', 'image/*'], eventTypes: ['mayfly.run', 'org.example.*'] },
    policy: { seccomp: 'compute', appArmor: 'compute' },
    kernel: { minimum: '6.1' },
    platform: { os: 'linux', architecture: 'amd64' },
    fileSystem: { type: 'erofs', digest: digestOf('file system'), bytes: 11 },
    layers: [],
    packages: [
      { name: 'libc6', version: '2.36-9', purl: 'pkg:deb/debian/libc6@2.36-9?arch=amd64' },
      { name: 'libstdc++6', version: '12.2', purl: 'pkg:deb/debian/libstdc%2B%2B6@12.2?arch=amd64' },
    ],
    inputs: digestOf('inputs'),
    origin: 'setup',
    created: '2026-11-24T12:00:00.000Z',
    ...different,
  };
}
