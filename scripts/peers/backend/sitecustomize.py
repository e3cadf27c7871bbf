"""Makes joblib's backend "loky" mean maniple's, in each Python program that joblib's tests start."""

import importlib.util
import sys


class Watch:
    """Replaces the backend when `joblib.parallel` has been loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != "joblib.parallel":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            register_any = module.register_parallel_backend

            def register_parallel_backend(name, factory, make_default=False):
                register_any(name, factory, make_default)
                if name == "maniple":
                    # Not beside it: joblib's tests have a parameter for each backend, and pytest numbers those that are objects.
                    module.BACKENDS["loky"] = module.BACKENDS.pop("maniple")

            module.register_parallel_backend = register_parallel_backend
            # A worker loads joblib when it registers the backend.
            if "maniple._impl.joblib.backend" not in sys.modules:
                import maniple.joblib

                maniple.joblib.register()

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Watch())
