/**
 * The virtual machine, as data: the complete device list and the rest of QEMU's command line.
 *
 * This is an allow-list. `-nodefaults` and `-no-user-config` remove everything that QEMU would add by itself, and what
 * follows is all there is: one virtio-serial port (the bridge), one read-only virtio disk for each file system of the
 * image (its base, and up to three layers) and a serial console. No network card, no USB, no graphics, no floppy.
 * test/vm/engine.test.ts (A1) and test/vm/build.test.ts compare it with what QMP enumerates.
 *
 * A template and its clones must be the same machine: only where RAM comes from and whether it waits for a saved state
 * may differ, so both come from this one function.
 */
import { limits } from '../../core/limits.ts';

/** Descriptors that the process inherits; nothing else is open in it. A clone has no kernel and no initramfs. */
export const descriptors = Object.freeze({
  qmp: 3, bridge: 4, kernel: 5, initramfs: 6, baseImage: 7, ram: 8, state: 9,
  /** The first layer; the next ones follow. */
  layers: 10,
});

/** Name of the object that holds back a clone's reads of its disk. */
export const throttleGroup = 'disk';

/** Bumped whenever a saved state of an older machine could not be loaded any more: part of a template's key. */
export const machineVersion = 2;

export interface MachineOptions {
  readonly accelerator: 'kvm' | 'tcg';
  readonly ramBytes: number;
  /** `template`: RAM is written to its file. `clone`: RAM is private, the machine waits for a saved state. */
  readonly role: 'template' | 'clone';
  /** File systems above the base image. */
  readonly layers: number;
  /** The memory backend can map a file privately that it opened read-only (QEMU >= 8.2): a clone cannot write to it. */
  readonly readOnlyRam: boolean;
}

export function machineArguments(options: MachineOptions): string[] {
  const { accelerator, ramBytes, role, layers } = options;
  const inherited = (descriptor: number): string => `/proc/self/fd/${descriptor}`;
  const baseFile = `driver=file,node-name=base-file,filename=${inherited(descriptors.baseImage)}`;
  const share = role === 'template' ? 'share=on' : options.readOnlyRam ? 'share=off,readonly=on,rom=off' : 'share=off';
  return [
    '-nodefaults', '-no-user-config', '-display', 'none', '-S',
    '-name', 'mayfly',
    '-machine', 'q35,usb=off,sata=off,smbus=off,vmport=off,memory-backend=ram',
    ...(accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', 'host']
      : ['-accel', `tcg,thread=single,tb-size=${limits.tcgCacheMiB}`, '-cpu', 'max']),
    '-smp', '1',
    '-m', `size=${ramBytes / (1024 * 1024)}M`,
    '-object', `memory-backend-file,id=ram,size=${ramBytes},mem-path=${inherited(descriptors.ram)},${share}`,
    // Pause instead of exit when the guest powers off, resets or panics: the console can still be read, then it is
    // killed.
    '-action', 'reboot=shutdown,shutdown=pause,panic=pause',
    '-chardev', `socket,id=qmp,fd=${descriptors.qmp}`,
    '-mon', 'chardev=qmp,mode=control',
    '-chardev', `ringbuf,id=console,size=${limits.consoleBytesMax}`,
    '-device', 'isa-serial,chardev=console',
    '-chardev', `socket,id=bridge,fd=${descriptors.bridge}`,
    '-device', 'virtio-serial-pci,id=serial,max_ports=2',
    '-device', 'virtserialport,bus=serial.0,nr=1,chardev=bridge,name=mayfly.bridge',
    '-blockdev', `${baseFile},read-only=on,locking=off`,
    '-blockdev', 'driver=raw,node-name=base-raw,file=base-file,read-only=on',
    // Without limits until a clone gets its own, over QMP, before it is resumed.
    '-object', `throttle-group,id=${throttleGroup}`,
    '-blockdev', `driver=throttle,node-name=base,throttle-group=${throttleGroup},file=base-raw,read-only=on`,
    '-device', 'virtio-blk-pci,drive=base',
    ...Array.from({ length: layers }, (_, at) => layerArguments(at, inherited(descriptors.layers + at))).flat(),
    // A clone does not boot: it waits for the state of one that did, and could not boot if its guest reset it.
    ...(role === 'clone'
      ? ['-incoming', 'defer']
      : ['-kernel', inherited(descriptors.kernel), '-initrd', inherited(descriptors.initramfs),
         '-append', [...kernelArguments, ...(layers > 0 ? [`mayfly.layers=${layers}`] : [])].join(' ')]),
    '-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
  ];
}

/** The serial number tells the agent which disk it mounts where, whatever the kernel calls it. */
function layerArguments(index: number, path: string): string[] {
  const name = `layer${index + 1}`;
  return [
    '-blockdev', `driver=file,node-name=${name}-file,filename=${path},read-only=on,locking=off`,
    '-blockdev', `driver=raw,node-name=${name},file=${name}-file,read-only=on`,
    '-device', `virtio-blk-pci,drive=${name},serial=${name}`,
  ];
}

/**
 * `panic=-1` reboots at once, which `-action` turns into a paused, dead machine; `mitigations` stay at the kernel's
 * default. `no_timer_check` is absent on purpose: under TCG it hangs the boot (DESIGN.md).
 */
const kernelArguments = [
  'console=ttyS0', 'quiet', 'loglevel=4', 'panic=-1', 'oops=panic', 'apparmor=1', 'security=apparmor',
  'random.trust_cpu=off', 'random.trust_bootloader=off',
];
