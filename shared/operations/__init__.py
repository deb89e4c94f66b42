"""What a person sees and does. Imported only when somebody looks."""
