// libpfbd.so is made of the module's archive; a shared library needs a source of its own.
