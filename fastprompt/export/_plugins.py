"""stub"""
class Library:
    def __init__(self, path, model, precision): self.model=model; self.halves=set()
    def has(self, node): return False
    def annotated(self, found): return self.model
