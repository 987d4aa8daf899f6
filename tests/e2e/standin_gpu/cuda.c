/* Stand-in for tests: the calls of the CUDA driver library that preflight makes. It sees eight devices. */

enum { DEVICES = 8, INVALID_DEVICE = 101 };

int cuInit(unsigned flags) { return flags ? 1 : 0; }

int cuDeviceGetCount(int *count) {
  *count = DEVICES;
  return 0;
}

int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal >= 0 && ordinal < DEVICES ? 0 : INVALID_DEVICE;
}

int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  static int contexts[DEVICES];
  (void)flags;
  *context = &contexts[device];
  return 0;
}

int cuCtxDestroy_v2(void *context) { return context ? 0 : 1; }
