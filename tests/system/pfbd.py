"""libpfbd through ctypes: the same C API that programs use."""
import ctypes
import os


class Options(ctypes.Structure):
    _fields_ = [("struct_bytes", ctypes.c_size_t), ("conductor", ctypes.c_char_p), ("flags", ctypes.c_uint32),
                ("depth", ctypes.c_uint32), ("io_timeout_ms", ctypes.c_uint32), ("buffer_bytes", ctypes.c_uint64)]


class Library:
    def __init__(self, build, conductor, io_timeout_ms=0):
        self.lib = ctypes.CDLL(os.path.join(build, "src/client/libpfbd.so"))
        self.lib.pfbd_error_text.restype = ctypes.c_char_p
        for name in ("pfbd_pread", "pfbd_pwrite"):
            getattr(self.lib, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
        self.context = ctypes.c_void_p()
        options = Options(ctypes.sizeof(Options), conductor.encode(), 0, 0, io_timeout_ms, 0)
        self._check(self.lib.pfbd_context_create(ctypes.byref(options), ctypes.byref(self.context)))

    def _check(self, status):
        if status < 0:
            raise OSError(-status, self.error())

    def error(self):
        return self.lib.pfbd_error_text().decode()

    def open(self, name, flags=0):
        volume = ctypes.c_void_p()
        self._check(self.lib.pfbd_open(self.context, name.encode(), flags, ctypes.byref(volume)))
        return volume

    def close(self, volume):
        self._check(self.lib.pfbd_close(volume))

    def read(self, volume, length, offset):
        """Status and bytes."""
        buffer = ctypes.create_string_buffer(max(1, length))
        status = self.lib.pfbd_pread(volume, buffer, length, offset)
        return status, buffer.raw[:length]

    def write(self, volume, data, offset, length=None):
        buffer = ctypes.create_string_buffer(data, max(1, len(data)))
        return self.lib.pfbd_pwrite(volume, buffer, len(data) if length is None else length, offset)

    def destroy(self):
        self.lib.pfbd_context_destroy(self.context)
